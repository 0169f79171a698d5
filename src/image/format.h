// format: fmt for this layer. LibTorch's include folder carries its own, newer fmt headers that match no installed library, so
// they are used header-only.
#pragma once

#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY
#endif
#include <fmt/format.h>
