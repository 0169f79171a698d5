// Malformed safetensors files: each one is one Error of one line that names the file, and never a crash or a read.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "ckpt/safetensors.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

struct Case {
  const char* name;
  std::string bytes;
  const char* says;  // part of the message
};

std::string w(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"("w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}
std::string file(const std::string& members, size_t data) { return raw_safetensors("{" + members + "}", std::string(data, '\1')); }
std::string length_word(uint64_t n) { return std::string(reinterpret_cast<const char*>(&n), 8); }
std::string nested(size_t depth) { return raw_safetensors(R"({"w":)" + std::string(depth, '[') + std::string(depth, ']') + "}", ""); }

const std::string kV = R"(,"v":{"dtype":"U8","shape":[4],"data_offsets":)";

std::vector<Case> cases() {
  return {
      {"empty", "", "0 bytes"},
      {"seven_bytes", "1234567", "7 bytes"},
      {"length_only", length_word(0), "not valid JSON"},
      {"header_past_the_end", length_word(100) + "{}", "truncated: header of 100 bytes"},
      {"huge_header", length_word(100'000'001) + "{}", "more than the 100000000 allowed"},
      {"length_of_all_ones", length_word(~uint64_t{0}) + "{}", "more than the 100000000 allowed"},
      {"truncated_data", file(w("F32", "[4]", "[0,16]"), 15), "truncated file?"},
      {"broken_json", raw_safetensors(R"({"w":{"dtype")", ""), "not valid JSON"},
      {"text_after_json", raw_safetensors("{} x", ""), "not valid JSON"},
      {"not_utf8", raw_safetensors("{\"\xff\xfe\":1}", ""), "not valid JSON"},
      {"header_is_an_array", raw_safetensors("[]", ""), "no JSON object"},
      {"tensor_is_a_number", file(R"("w":7)", 0), "expected an object"},
      {"nested_junk", nested(40), "expected an object"},
      {"too_deep", nested(100000), "nested deeper"},
      {"no_dtype", file(R"("w":{"shape":[1],"data_offsets":[0,1]})", 1), "dtype: missing"},
      {"no_shape", file(R"("w":{"dtype":"U8","data_offsets":[0,1]})", 1), "shape: missing"},
      {"no_offsets", file(R"("w":{"dtype":"U8","shape":[1]})", 1), "data_offsets: missing"},
      {"lower_case_dtype", file(w("f32", "[1]", "[0,4]"), 4), "unknown dtype \"f32\""},
      {"unknown_dtype", file(w("Q4_K", "[1]", "[0,4]"), 4), "unknown dtype"},
      {"dtype_is_a_number", file(R"("w":{"dtype":3,"shape":[1],"data_offsets":[0,1]})", 1), "expected a string"},
      {"shape_is_text", file(w("U8", "\"1\"", "[0,1]"), 1), "expected an array"},
      {"negative_dimension", file(w("U8", "[-1]", "[0,1]"), 1), "non-negative"},
      {"fractional_dimension", file(w("U8", "[1.5]", "[0,1]"), 1), "non-negative"},
      {"float_dimension", file(w("U8", "[1.0]", "[0,1]"), 1), "non-negative"},
      {"negative_offset", file(w("U8", "[1]", "[-1,0]"), 1), "non-negative"},
      {"offset_past_int64", file(w("U8", "[1]", "[0,18446744073709551615]"), 1), "non-negative"},
      {"one_offset", file(w("U8", "[1]", "[1]"), 1), "1 numbers, not 2"},
      {"three_offsets", file(w("U8", "[1]", "[0,1,2]"), 1), "3 numbers, not 2"},
      {"offsets_reversed", file(w("U8", "[1]", "[1,0]"), 1), "end before they begin"},
      {"lying_length", file(w("F32", "[3]", "[0,16]"), 16), "takes 12 bytes, data_offsets hold 16"},
      {"lying_dtype", file(w("F64", "[4]", "[0,16]"), 16), "takes 32 bytes"},
      {"shape_overflow", file(w("F32", "[4294967296,4294967296,4294967296]", "[0,16]"), 16), "not a possible size"},
      {"byte_overflow", file(w("F64", "[2305843009213693952]", "[0,0]"), 0), "not a possible size"},
      {"wraps_to_the_right_length", file(w("U8", "[4294967297,4294967296]", "[0,4]"), 4), "not a possible size"},
      {"odd_sub_byte", file(w("F4", "[3]", "[0,1]"), 1), "not a possible size"},
      {"overlap", file(w("U8", "[4]", "[0,4]") + kV + "[2,6]}", 6), "overlaps"},
      {"same_place", file(w("U8", "[4]", "[0,4]") + kV + "[0,4]}", 4), "overlaps"},
      {"hole", file(w("U8", "[4]", "[0,4]") + kV + "[6,10]}", 10), "hole of 2 bytes"},
      {"hole_at_the_start", file(w("U8", "[4]", "[4,8]"), 8), "hole of 4 bytes"},
      {"bytes_at_the_end", file(w("U8", "[4]", "[0,4]"), 6), "2 bytes at the end"},
      {"data_without_tensors", file("", 6), "6 bytes at the end"},
      {"repeated_name_leaves_a_hole", file(w("U8", "[4]", "[0,4]") + "," + w("U8", "[4]", "[4,8]"), 8), "hole of 4 bytes"},
      {"metadata_is_an_array", file(R"("__metadata__":[])", 0), "__metadata__: expected an object"},
      {"metadata_number", file(R"("__metadata__":{"format":1})", 0), "__metadata__: format: expected a string"},
  };
}

TEST(MalformedSafetensors, EachIsOneLineThatNamesTheFile) {
  TempDir dir;
  ASSERT_GE(cases().size(), 40u);
  for (const Case& c : cases()) {
    const std::string path = dir / (std::string(c.name) + ".safetensors");
    write_text(path, c.bytes);
    try {
      SafetensorsFile opened(path);
      ADD_FAILURE() << c.name << ": opened";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_file) << c.name;
      EXPECT_TRUE(e.message().starts_with(path + ": ")) << e.message();
      EXPECT_NE(e.message().find(c.says), std::string::npos) << c.name << ": " << e.message();
      EXPECT_EQ(e.message().find('\n'), std::string::npos) << c.name;
      EXPECT_LT(e.message().size(), 600u) << c.name;
    }
  }
}

TEST(MalformedSafetensors, EveryTruncationOfAGoodFileIsRefused) {
  TempDir dir;
  const std::string good = file(w("U8", "[4]", "[0,4]") + kV + "[4,8]}", 8);
  write_text(dir / "good", good);
  EXPECT_EQ(SafetensorsFile(dir / "good").tensors().size(), 2u);
  for (size_t n = 0; n < good.size(); ++n) {
    write_text(dir / "cut", good.substr(0, n));
    EXPECT_THROW(SafetensorsFile(dir / "cut"), Error) << n;
  }
}

TEST(MalformedSafetensors, FoldersLoopsAndDevicesAreRefused) {
  TempDir dir;
  std::filesystem::create_directory(dir / "folder");
  std::filesystem::create_symlink("loop", dir / "loop");
  std::filesystem::create_symlink("gone", dir / "dangling");
  for (const std::string& path : {dir / "folder", dir / "loop", dir / "dangling", std::string("/dev/null"), dir / "absent"}) {
    EXPECT_THROW(SafetensorsFile{path}, Error) << path;
  }
}

TEST(MalformedSafetensors, OddButLegalFilesAreRead) {
  TempDir dir;
  // Leading spaces, a repeated name whose last entry fits, no tensors, a scalar, a tensor of no elements.
  for (const std::string& bytes : {raw_safetensors("  {}  ", ""), file(w("U8", "[2]", "[0,4]") + "," + w("U8", "[4]", "[0,4]"), 4),
                                   file("", 0), file(w("F32", "[]", "[0,4]"), 4), file(w("F32", "[0,4294967296]", "[0,0]"), 0)}) {
    write_text(dir / "x", bytes);
    EXPECT_NO_THROW(SafetensorsFile{dir / "x"});
  }
}

TEST(MalformedSafetensors, ADtypeWithoutALibTorchTypeIsListedButNotRead) {
  TempDir dir;
  write_text(dir / "x", file(w("F6_E2M3", "[4]", "[0,3]"), 3));
  SafetensorsFile opened(dir / "x");
  EXPECT_EQ(opened.tensors().at(0).shape, std::vector<int64_t>{4});
  EXPECT_THROW(opened.tensor("w"), Error);
}

}  // namespace
}  // namespace statera
