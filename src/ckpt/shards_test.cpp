// Planning and filling shards.
#include "ckpt/shards.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

at::Tensor values(int64_t n, int64_t from) { return at::arange(from, from + n).to(at::kFloat); }

std::vector<TensorPlan> six() {
  std::vector<TensorPlan> plans;
  for (int i = 0; i < 3; ++i) {
    const std::string m = "m" + std::to_string(i);
    plans.push_back({m + ".weight", at::kFloat, {25}});
    plans.push_back({m + ".bias", at::kFloat, {5}});
  }
  return plans;
}

TEST(Shards, ModulesStayTogetherAndNamesCountFromOne) {
  ShardPlan plan = plan_shards(six(), 250);  // two modules of 120 bytes fit, three do not
  ASSERT_EQ(plan.files.size(), 2u);
  EXPECT_EQ(plan.files[0].name, "model-00001-of-00002.safetensors");
  EXPECT_EQ(plan.file_of.at("m1.bias"), 0u);
  EXPECT_EQ(plan.file_of.at("m2.weight"), 1u);
  EXPECT_EQ(plan.total_bytes, 360u);
  Json index = Json::parse(plan.index_json(), "index");
  EXPECT_EQ(index.at("metadata").at("total_size").as_int(), 360);
  EXPECT_EQ(index.at("weight_map").at("m2.bias").as_string(), "model-00002-of-00002.safetensors");
  EXPECT_EQ(index.at("weight_map").as_object().size(), 6u);
}

TEST(Shards, AModuleLargerThanAShardGetsItsOwn) {
  ShardPlan plan = plan_shards(six(), 100);
  EXPECT_EQ(plan.files.size(), 3u);
}

TEST(Shards, OneFileNeedsNoIndex) {
  ShardPlan plan = plan_shards(six());
  ASSERT_EQ(plan.files.size(), 1u);
  EXPECT_EQ(plan.files[0].name, "model.safetensors");
  EXPECT_EQ(plan.index_json(), "");
}

TEST(Shards, FilledInAnyOrderAShardEqualsTheFileWrittenAtOnce) {
  TempDir dir;
  ShardPlan plan = plan_shards(six());
  NamedTensors tensors;
  int64_t next = 0;
  for (const auto& t : six()) tensors.emplace_back(t.name, values(t.shape[0], next += 100));
  {
    // A first run that was killed: one tensor, and rubbish in another's place.
    ShardFile file(dir, plan.files[0]);
    file.write("m2.bias", tensors[5].second);
    file.write("m0.weight", values(25, 7777));
  }
  EXPECT_EQ(file_size(dir / "model.safetensors"), plan.files[0].plan.bytes);
  ShardFile file(dir, plan.files[0]);
  for (size_t i = tensors.size(); i-- > 0;) {
    const at::Tensor& t = tensors[i].second;
    const auto half = static_cast<uint64_t>(t.nbytes() / 2);
    file.write_bytes(tensors[i].first, half, static_cast<const char*>(t.data_ptr()) + half, t.nbytes() - half);
    file.write_bytes(tensors[i].first, 0, t.data_ptr(), half);
  }
  file.sync();
  write_safetensors(dir / "once.safetensors", tensors);
  EXPECT_EQ(read_file(dir / "model.safetensors"), read_file(dir / "once.safetensors"));
}

TEST(Shards, ATensorThatIsNotPlannedSoIsABug) {
  TempDir dir;
  ShardPlan plan = plan_shards(six());
  ShardFile file(dir, plan.files[0]);
  EXPECT_THROW(file.write("m0.weight", at::zeros({24})), Bug);
  EXPECT_THROW(file.write("m9.weight", at::zeros({25})), Bug);
  EXPECT_THROW(file.write_bytes("m0.bias", 16, "12345", 5), Bug);
}

TEST(Shards, ATooSmallDiskIsSeenWhenTheShardIsOpened) {
  TempDir dir;
  ShardPlan plan = plan_shards({{"w", at::kFloat, {1 << 20}}});
  struct rlimit old {};
  ::getrlimit(RLIMIT_FSIZE, &old);
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small {
    1 << 16, old.rlim_max
  };
  ::setrlimit(RLIMIT_FSIZE, &small);
  try {
    ShardFile file(dir, plan.files[0]);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_NE(e.message().find("model.safetensors"), std::string::npos) << e.message();
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
}

}  // namespace
}  // namespace statera
