// Calibration data out of Parquet files: the same samples, to the hash, as from the .jsonl of the same content.
#include <gtest/gtest.h>

#include <filesystem>

#include "ckpt/test_files.h"
#include "quant/calib/test_samples.h"

namespace statera {
namespace {
using namespace calib_test;

TEST(ParquetData, HashesAreThoseOfTheJsonLinesOfTheSameContent) {
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const auto read = [&](const std::string& path, const std::string& field) {
    CalibOptions o;
    o.data = {path + field};
    o.n_samples = 4;  // fewer than some files have: the order counts
    o.max_seq_len = 64 * (field.empty() ? 10 : 1);
    o.image_folder = root("tests/golden/parquet");
    return tiny.data(o);
  };
  TempDir dir;
  for (const std::string name : {"texts", "messages", "items", "llava", "pairs"}) {
    const std::string field = name == "texts" ? ":body" : "", from = root("tests/golden/parquet/") + name;
    const CalibData table = read(from + ".parquet", field), lines = read(from + ".jsonl", field);
    ASSERT_GT(table.samples.size(), 0u) << name;
    EXPECT_EQ(table.summary.hash, lines.summary.hash) << name;
    EXPECT_EQ(table.summary.vision_tokens > 0, name == "items" || name == "llava" || name == "pairs") << name;
    // Nor does it matter where the file lies and what it is called.
    std::filesystem::copy_file(from + ".jsonl", dir / ("copy of " + name + ".jsonl"));
    EXPECT_EQ(read(dir / ("copy of " + name + ".jsonl"), field).summary.hash, lines.summary.hash) << name;
    // Pixels are read again when a sample enters the model.
    EXPECT_EQ(table.inputs(0).pixel_values.defined(), lines.inputs(0).pixel_values.defined()) << name;
  }
}

}  // namespace
}  // namespace statera
