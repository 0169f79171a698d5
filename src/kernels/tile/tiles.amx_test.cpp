// tiles.amx.cpp once more, on emulated tiles. Cases: tiles_test.cpp.
#include "kernels/emulated_tiles_test.h"
#include "kernels/tile/tiles.h"

namespace statera::kernels::tile {
extern const Tiles kAmxTilesTwin;
}

#define kAmxTiles kAmxTilesTwin
#include "kernels/tile/tiles.amx.cpp"  // NOLINT(bugprone-suspicious-include): a second object of it
