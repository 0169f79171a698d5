// Experts in one tensor, in both layouts: which matrix is whose, squares, and what is wrong with a file.
#include "ckpt/fused_experts.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

constexpr int64_t kE = 3;

struct Experts {
  std::vector<at::Tensor> gate, up, down;
  Experts(int64_t H, int64_t I) {
    for (int64_t e = 0; e < kE; ++e) {
      gate.push_back(at::randn({I, H}));
      up.push_back(at::randn({I, H}));
      down.push_back(at::randn({H, I}));
    }
  }
  // One tensor each; input_major: as Qwen3-VL-MoE was released.
  NamedTensors fused(bool input_major) const {
    std::vector<at::Tensor> both;
    for (size_t e = 0; e < gate.size(); ++e) both.push_back(at::cat({gate[e], up[e]}, 0));
    at::Tensor a = at::stack(both), b = at::stack(down);
    if (input_major) {
      a = a.transpose(1, 2).contiguous();
      b = b.transpose(1, 2).contiguous();
    }
    return {{"m.experts.gate_up_proj", a}, {"m.experts.down_proj", b}};
  }
};

Checkpoint write(const TempDir& dir, const NamedTensors& tensors) {
  write_text(dir / "config.json", "{}");
  write_safetensors(dir / "model.safetensors", tensors);
  return Checkpoint::open(dir);
}

at::Tensor read(const Checkpoint& c, const std::string& path, int64_t out, int64_t in) {
  const auto found = find_fused_expert(c, path, out, in);
  EXPECT_TRUE(found) << path;
  return found ? fused_expert_weight(c, *found) : at::Tensor();
}

TEST(FusedExperts, BothLayoutsGiveEveryExpertItsMatrices) {
  // Of sizes that differ, and where one of the two tensors holds squares.
  for (const auto& [H, I] : std::vector<std::pair<int64_t, int64_t>>{{8, 6}, {8, 4}, {8, 8}}) {
    const Experts experts(H, I);
    for (const bool input_major : {false, true}) {
      TempDir dir;
      const Checkpoint c = write(dir, experts.fused(input_major));
      for (size_t e = 0; e < kE; ++e) {
        const std::string path = "m.experts." + std::to_string(e) + ".";
        EXPECT_TRUE(read(c, path + "gate_proj", I, H).equal(experts.gate[e])) << H << I << input_major;
        EXPECT_TRUE(read(c, path + "up_proj", I, H).equal(experts.up[e])) << H << I << input_major;
        EXPECT_TRUE(read(c, path + "down_proj", H, I).equal(experts.down[e])) << H << I << input_major;
      }
    }
  }
}

TEST(FusedExperts, AreViewsOfTheFile) {
  TempDir dir;
  const Checkpoint c = write(dir, Experts(8, 6).fused(true));
  const auto* whole = static_cast<const char*>(c.tensor("m.experts.gate_up_proj").const_data_ptr());
  const at::Tensor up = read(c, "m.experts.2.up_proj", 6, 8);
  EXPECT_EQ(static_cast<const char*>(up.const_data_ptr()), whole + (2 * 8 * 12 + 6) * 4);
  EXPECT_EQ(up.stride(0), 1);
  EXPECT_TRUE(c.used("m.experts.gate_up_proj"));
}

TEST(FusedExperts, ATensorOfItsOwnGoesBefore) {
  TempDir dir;
  NamedTensors tensors = Experts(8, 6).fused(false);
  tensors.emplace_back("m.experts.1.up_proj.weight", at::randn({6, 8}));
  const Checkpoint c = write(dir, tensors);
  EXPECT_FALSE(find_fused_expert(c, "m.experts.1.up_proj", 6, 8));
  EXPECT_TRUE(find_fused_expert(c, "m.experts.0.up_proj", 6, 8));
  for (const char* other : {"m.up_proj", "m.experts.x.up_proj", "m.experts.-1.up_proj", "m.experts..up_proj", "m.experts.1", "m.experts.1.w1", "n.experts.1.up_proj"})
    EXPECT_FALSE(find_fused_expert(c, other, 6, 8)) << other;
}

TEST(FusedExperts, OtherShapesAndTypesAreNamed) {
  TempDir dir;
  const Checkpoint c = write(dir, {{"m.experts.gate_up_proj", at::randn({kE, 8, 11})},
                                   {"n.experts.gate_up_proj", at::randn({kE, 8, 8})},
                                   {"o.experts.down_proj", at::arange(kE * 48).reshape({kE, 8, 6})}});
  auto problem = [&](const std::string& path, int64_t out, int64_t in) { return find_fused_expert(c, path, out, in).value().problem; };
  EXPECT_EQ(problem("m.experts.1.up_proj", 6, 8), "shape [3, 8, 11], expected [E, 12, 8] or [E, 8, 12] with E above 1");
  EXPECT_EQ(problem("n.experts.3.up_proj", 4, 8), "shape [3, 8, 8], expected [E, 8, 8] or [E, 8, 8] with E above 3");
  EXPECT_EQ(problem("n.experts.1.up_proj", 4, 8), "shape [3, 8, 8] does not say whether rows are inputs or outputs");
  EXPECT_EQ(problem("o.experts.1.down_proj", 8, 6), "dtype I64, expected F32, BF16 or F16");
  try {
    fused_expert_weight(c, *find_fused_expert(c, "m.experts.1.up_proj", 6, 8));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_file);
    EXPECT_NE(e.message().find("tensor m.experts.gate_up_proj: shape"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace statera
