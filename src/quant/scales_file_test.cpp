// scales.safetensors: what is written is read, other settings are refused by name, and only scale steps are replaced.
#include "quant/scales_file.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"
#include "quant/sha256.h"

namespace statera {
namespace {

std::vector<JournalEntry> units() {
  JournalEntry a, b;
  a.unit = "model.layers.0";
  a.scales.push_back({.group = "input_layernorm", .readers = {"q", "k"}, .scale_C = at::full({4}, 2.0), .ratio = 0.25, .losses = {3, 1, 2}, .rho = 0.1, .mean_abs_K = at::full({4}, 7.0)});
  a.scales.push_back({.group = "up_proj", .readers = {"down"}, .scale_C = at::full({6}, 0.5), .ratio = 0.1});
  a.scales.push_back({.group = "input_layernorm", .readers = {"q", "k"}, .scale_C = at::full({4}, 3.0), .ratio = 0.5});
  b.unit = "model.layers.1";
  b.clips.push_back({"model.layers.1.mlp.up_proj", at::full({3, 2}, 4, at::kByte), 20});
  return {a, b};
}

Json settings(int64_t bits) {
  Json j = Json::object();
  j.set("method", "awq");
  j.set("w_bits", bits);
  return j;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

TEST(ScalesFile, WhatWasWrittenIsReadInTheOrderOfFolding) {
  TempDir dir;
  const std::string path = dir / "scales.safetensors";
  write_scales(path, settings(4), units());
  const ScaleSet got = read_scales(path);
  EXPECT_EQ(got.settings, settings(4));
  EXPECT_EQ(got.sha256, sha256_file(path));
  ASSERT_EQ(got.entries.size(), 3u);
  const auto wanted = units()[0].scales;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(got.entries[i].block, "model.layers.0");
    EXPECT_EQ(got.entries[i].record.group, wanted[i].group);
    EXPECT_EQ(got.entries[i].record.readers, wanted[i].readers);
    EXPECT_EQ(got.entries[i].record.ratio, wanted[i].ratio);
    EXPECT_EQ(got.entries[i].record.losses, wanted[i].losses);
    EXPECT_EQ(got.entries[i].record.rho, wanted[i].rho);
    EXPECT_TRUE(at::equal(got.entries[i].record.scale_C, wanted[i].scale_C));
    ASSERT_EQ(got.entries[i].record.mean_abs_K.defined(), i == 0);
    if (i == 0) { EXPECT_TRUE(at::equal(got.entries[i].record.mean_abs_K, wanted[i].mean_abs_K)); }
  }
  ASSERT_EQ(got.clips.size(), 1u);
  EXPECT_EQ(got.clips[0].block, "model.layers.1");
  EXPECT_EQ(got.clips[0].record.layer, "model.layers.1.mlp.up_proj");
  EXPECT_EQ(got.clips[0].record.steps, 20);
  EXPECT_TRUE(at::equal(got.clips[0].record.shrink_NG, at::full({3, 2}, 4, at::kByte)));
}

TEST(ScalesFile, RangesThatLeaveNothingAreRefused) {
  TempDir dir;
  auto broken = units();
  broken[1].clips[0].shrink_NG[2][1] = 20;
  write_scales(dir / "s.safetensors", settings(4), broken);
  EXPECT_NE(message_of([&] { read_scales(dir / "s.safetensors"); }).find("model.layers.1.mlp.up_proj that leave nothing"), std::string::npos);
}

TEST(ScalesFile, OtherSettingsAreRefusedByName) {
  TempDir dir;
  write_scales(dir / "s.safetensors", settings(4), units());
  const ScaleSet scales = read_scales(dir / "s.safetensors");
  EXPECT_EQ(message_of([&] { check_scales_fit(scales, settings(4), {"method", "w_bits"}); }), "");
  EXPECT_NE(message_of([&] { check_scales_fit(scales, settings(3), {"method", "w_bits"}); }).find("w_bits is 4 there, 3 in this run"), std::string::npos);
  Json more = settings(4);
  more.set("a_bits", 8);
  EXPECT_NE(message_of([&] { check_scales_fit(scales, more, {"a_bits"}); }).find("a_bits is nothing there"), std::string::npos);
}

TEST(ScalesFile, OtherFilesAreRefused) {
  TempDir dir;
  write_safetensors(dir / "w.safetensors", {{"a", at::full({2}, 1.0)}});
  EXPECT_NE(message_of([&] { read_scales(dir / "w.safetensors"); }).find("holds no scales"), std::string::npos);
  write_text(dir / "t.safetensors", "no");
  EXPECT_NE(message_of([&] { read_scales(dir / "t.safetensors"); }), "");
  EXPECT_NE(message_of([&] { read_scales(dir / "absent.safetensors"); }), "");
}

struct Rounding : Step {
  void apply(BlockJob&) override {}
};
struct Scaling : Rounding {
  bool only_scales() const override { return true; }
  bool needs_data() const override { return true; }
};

TEST(ScalesFile, StepsThatChooseScalesAreReplacedByOneAndOthersStay) {
  const ScaleSet scales;
  Recipe recipe;
  recipe.push_back(std::make_unique<Scaling>());
  recipe.push_back(std::make_unique<Scaling>());
  recipe.push_back(std::make_unique<Rounding>());
  const Step* rounding = recipe.back().get();
  const Recipe out = reuse_scales(std::move(recipe), scales);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_TRUE(out[0]->only_scales());
  EXPECT_FALSE(out[0]->needs_data());
  EXPECT_EQ(out[1].get(), rounding);
  Recipe plain;
  plain.push_back(std::make_unique<Rounding>());
  EXPECT_NE(message_of([&] { reuse_scales(std::move(plain), scales); }).find("chooses no scales"), std::string::npos);
}

}  // namespace
}  // namespace statera
