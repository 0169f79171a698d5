// Reading and writing single safetensors files.
#include "ckpt/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/progress.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

// The example of docs/formats.md: {a: BF16 [1,2] = 1,2; b: I8 0..2; c: F32 1.5}.
NamedTensors example() {
  return {{"a", at::arange(1, 3).to(at::kBFloat16).reshape({1, 2})},
          {"b", at::arange(0, 3).to(at::kChar)},
          {"c", at::scalar_tensor(1.5).to(at::kFloat).reshape({1})}};
}

TEST(SafetensorsWrite, TheDocumentedExampleIsByteEqual) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", example());
  const std::string bytes = read_file(dir / "x.safetensors");
  ASSERT_EQ(bytes.size(), 219u);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\xc8\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(208), std::string("\0\0\xc0\x3f\x80\x3f\0\x40\0\1\2", 11));
  EXPECT_TRUE(bytes.substr(8).starts_with(R"({"__metadata__":{"format":"pt"},"c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a")"));
}

TEST(SafetensorsWrite, EveryDtypeIsOrderedAsThePythonWriterOrdersIt) {
  // tests/golden/dtypes.safetensors: written by safetensors 0.8.0 (tools/golden/formats.py).
  const std::string golden = std::string(STATERA_SOURCE_DIR) + "/tests/golden/dtypes.safetensors";
  SafetensorsFile file(golden);
  NamedTensors tensors;
  for (const TensorInfo& t : file.tensors()) tensors.emplace_back(t.name, file.tensor(t));
  ASSERT_EQ(tensors.size(), 20u);
  std::reverse(tensors.begin(), tensors.end());
  TempDir dir;
  write_safetensors(dir / "x.safetensors", tensors, file.metadata());
  EXPECT_EQ(read_file(dir / "x.safetensors"), read_file(golden));
}

TEST(Safetensors, WhatIsWrittenIsReadBack) {
  TempDir dir;
  NamedTensors tensors = example();
  tensors.emplace_back("empty", at::zeros({0, 4}));
  tensors.emplace_back("scalar", at::scalar_tensor(3).to(at::kLong));
  tensors.emplace_back("strided", at::arange(12).to(at::kFloat).reshape({3, 4}).t());
  write_safetensors(dir / "x.safetensors", tensors);
  SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.metadata(), torch_metadata());
  EXPECT_EQ(file.tensors().size(), tensors.size());
  for (const auto& [name, t] : tensors) {
    at::Tensor back = file.tensor(name);
    EXPECT_EQ(back.scalar_type(), t.scalar_type()) << name;
    EXPECT_EQ(back.sizes(), t.sizes()) << name;
    EXPECT_TRUE(at::equal(back, t)) << name;
  }
  EXPECT_EQ(file.find("nothing"), nullptr);
}

TEST(Safetensors, ATensorKeepsTheMappingAliveAfterItsFileIsGone) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"w", at::arange(4096).to(at::kFloat)}});
  at::Tensor w;
  {
    SafetensorsFile file(dir / "x.safetensors");
    w = file.tensor("w");
    EXPECT_EQ(w.data_ptr(), file.mapping().data() + file.find("w")->offset);
  }
  std::filesystem::remove(dir / "x.safetensors");
  EXPECT_TRUE(at::equal(w, at::arange(4096).to(at::kFloat)));
}

TEST(Safetensors, AnUnalignedTensorIsCopied) {
  TempDir dir;
  const std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  write_raw(dir / "x.safetensors", header + " ", std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  ASSERT_NE((8 + header.size() + 1) % 4, 0u);
  SafetensorsFile file(dir / "x.safetensors");
  at::Tensor w = file.tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w.data_ptr()) % 4, 0u);
  EXPECT_TRUE(at::equal(w, at::arange(1, 3).to(at::kFloat)));
}

TEST(Safetensors, OpeningALargeFileTouchesNoDataPage) {
  TempDir dir;
  // 8 GB that take no room on disk.
  std::vector<TensorPlan> plans;
  for (int i = 0; i < 400; ++i) plans.push_back({"layers." + std::to_string(i) + ".weight", at::kBFloat16, {2560, 3906}});
  const FilePlan plan = plan_file(plans, torch_metadata());
  std::ofstream(dir / "x.safetensors", std::ios::binary) << plan.header;
  std::filesystem::resize_file(dir / "x.safetensors", plan.bytes);
  ASSERT_GT(plan.bytes, 7'900'000'000u);
  const uint64_t before = resident_bytes();
  const auto start = std::chrono::steady_clock::now();
  SafetensorsFile file(dir / "x.safetensors");
  std::vector<at::Tensor> all;
  for (const TensorInfo& t : file.tensors()) all.push_back(file.tensor(t));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(all.size(), 400u);
  EXPECT_LT(seconds, 0.5);
  EXPECT_LT(resident_bytes() - before, 4u << 20);
}

TEST(SafetensorsWrite, AFullDiskIsOneIoErrorAndLeavesNothing) {
  TempDir dir;
  struct rlimit old {};
  ::getrlimit(RLIMIT_FSIZE, &old);
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small {
    1 << 16, old.rlim_max
  };
  ::setrlimit(RLIMIT_FSIZE, &small);
  try {
    write_safetensors(dir / "x.safetensors", {{"w", at::zeros({1 << 16})}});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_NE(e.message().find("tensor w"), std::string::npos) << e.message();
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(std::filesystem::is_empty(std::string(dir)));
}

TEST(SafetensorsWrite, ARepeatedNameIsABug) {
  TempDir dir;
  EXPECT_THROW(write_safetensors(dir / "x.safetensors", {{"w", at::zeros({1})}, {"w", at::zeros({1})}}), Bug);
}

}  // namespace
}  // namespace statera
