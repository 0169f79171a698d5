// compare() on the bundled example: a checkpoint with itself, and with coarser and finer roundings of it.
#include "api/compare.h"

#include <gtest/gtest.h>

#include "api/quantize.h"
#include "base/error.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

const std::string kModel = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";

CompareReport against(const std::string& other, std::vector<std::string> messages = {}) {
  CompareOptions o;
  o.a = kModel;
  o.b = other;
  o.dtype = "fp32";
  o.messages = std::move(messages);
  return compare(o);
}

TEST(Compare, CheckpointWithItselfDivergesByNothing) {
  const CompareReport r = against(kModel);
  EXPECT_GE(r.prompts.size(), 5u);
  EXPECT_GT(r.total.positions, 100);
  EXPECT_EQ(r.total.kl_sum, 0);
  EXPECT_EQ(r.total.logit_max, 0);
  EXPECT_EQ(r.total.agreement(), 1);
}

TEST(Compare, CoarserRoundingDivergesMore) {
  TempDir dir;
  double before = 0;
  for (int64_t bits : {8, 4, 2}) {
    QuantizeOptions q;
    q.model = kModel;
    q.out = dir / std::to_string(bits);
    q.w_bits = bits;
    q.w_group = -1;
    quantize(q);
    const CompareReport r = against(q.out);
    EXPECT_GT(r.total.kl_mean(), before) << bits;
    EXPECT_GT(r.total.logit_max, 0);
    before = r.total.kl_mean();
  }
}

TEST(Compare, MessagesWithAPictureAreTakenThroughTheTower) {
  const CompareReport r = against(kModel, {std::string(STATERA_SOURCE_DIR) + "/examples/messages/describe.json"});
  EXPECT_EQ(r.prompts.size(), 1u);
  EXPECT_EQ(r.total.kl_sum, 0);
}

TEST(Compare, OtherVocabulariesAreAMismatch) {
  try {
    against(std::string(STATERA_SOURCE_DIR) + "/tests/tiny/llama");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::mismatch) << e.message();
  }
}

}  // namespace
}  // namespace statera
