// Windows, statistics, divergences, the spill and the readers: every value computed by hand.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "data/test_frames.h"
#include "eval/divergence.h"
#include "eval/documents.h"
#include "eval/questions.h"
#include "eval/row_spill.h"
#include "eval/statistics.h"
#include "eval/windows.h"

namespace statera {
namespace {

using Windows = std::vector<Window>;

TEST(SlidingWindows, OverlapAndPredictEachTokenOnce) {
  EXPECT_EQ(sliding_windows(10, 4, 2), (Windows{{0, 4, 1}, {2, 6, 4}, {4, 8, 6}, {6, 10, 8}}));
  EXPECT_EQ(sliding_windows(9, 4, 3), (Windows{{0, 4, 1}, {3, 7, 4}, {6, 9, 7}}));
  for (int64_t tokens : {2, 3, 63, 64, 65, 200}) {
    for (int64_t stride : {1, 7, 63}) {
      int64_t next = 1;
      for (const Window& w : sliding_windows(tokens, 64, stride)) {
        EXPECT_EQ(w.scored, next);
        EXPECT_LE(w.end - w.begin, 64);
        next = w.end;
      }
      EXPECT_EQ(next, tokens);
    }
  }
}

TEST(SlidingWindows, StrideOfTheWindowGivesDisjointWindows) {
  EXPECT_EQ(sliding_windows(10, 4, 4), (Windows{{0, 4, 1}, {4, 8, 5}, {8, 10, 9}}));
  EXPECT_EQ(sliding_windows(9, 4, 4), (Windows{{0, 4, 1}, {4, 8, 5}})) << "a window of one token predicts nothing";
  EXPECT_EQ(sliding_windows(4, 4, 4), (Windows{{0, 4, 1}}));
  EXPECT_TRUE(sliding_windows(1, 4, 4).empty());
  EXPECT_TRUE(sliding_windows(0, 4, 4).empty());
  EXPECT_THROW(sliding_windows(10, 4, 5), Bug);
}

TEST(Statistics, MeanWithItsStandardError) {
  const Estimate e = mean_of({1, 0, 1, 1});
  EXPECT_DOUBLE_EQ(e.value, 0.75);
  EXPECT_DOUBLE_EQ(*e.standard_error, 0.25);  // s = 0.5, over sqrt(4)
  EXPECT_FALSE(mean_of({3}).standard_error);
  EXPECT_EQ(mean_of({}).value, 0);
}

TEST(Statistics, RatioOverClustersOfUnequalWeight) {
  // ratio 10 / 5 = 2; residuals 4 - 2, 6 - 8: squares 8; sqrt(2 / 1 * 8) / 5
  const Estimate e = ratio_of({{4, 1}, {6, 4}});
  EXPECT_DOUBLE_EQ(e.value, 2);
  EXPECT_DOUBLE_EQ(*e.standard_error, 0.8);
  // Equal weights: the standard error of the mean.
  EXPECT_NEAR(*ratio_of({{1, 1}, {0, 1}, {1, 1}, {1, 1}}).standard_error, *mean_of({1, 0, 1, 1}).standard_error, 1e-15);
  EXPECT_FALSE(ratio_of({{4, 2}}).standard_error);
}

TEST(Statistics, QuantileInterpolates) {
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 1), 4);
  EXPECT_DOUBLE_EQ(quantile({7}, 0.99), 7);
  std::vector<double> hundred;
  for (int i = 0; i <= 100; ++i) hundred.push_back(100 - i);
  EXPECT_DOUBLE_EQ(quantile(hundred, 0.99), 99);
  EXPECT_EQ(quantile({}, 0.99), 0);
}

TEST(CompareRows, HandComputed) {
  // A = (1/2, 1/4, 1/4), B = (1/4, 1/2, 1/4): KL = 1/2 log 2 - 1/4 log 2
  const float l = std::log(2.0f);
  const RowDivergence r = compare_rows(std::vector<float>{l, 0, 0}, std::vector<float>{3, 3 + l, 3});
  EXPECT_NEAR(r.kl, std::log(2.0) / 4, 1e-6);
  EXPECT_FALSE(r.top1);
  EXPECT_EQ(r.top5, 1) << "three tokens are fewer than five";
  EXPECT_NEAR(r.logit_max, 3 + l, 1e-6);
  EXPECT_NEAR(r.log_z_a, std::log(4.0), 1e-6);
  EXPECT_NEAR(r.log_z_b, 3 + std::log(4.0), 1e-6);
}

TEST(CompareRows, TopFiveCountsCommonTokens) {
  const std::vector<float> a{9, 8, 7, 6, 5, 0, 0, 0}, b{9, 0, 7, 6, 0, 8, 1, 0};
  const RowDivergence r = compare_rows(a, b);
  EXPECT_TRUE(r.top1);
  EXPECT_DOUBLE_EQ(r.top5, 0.6);  // 0, 2, 3 of 0..4 are among 0, 5, 2, 3, 6
  const std::vector<float> equal(8, 1.0f);
  EXPECT_EQ(compare_rows(equal, a).top5, 1) << "of equals the lower ids";
}

TEST(CompareRows, EqualRowsGiveExactlyNothing) {
  std::vector<float> a;
  for (int i = 0; i < 1000; ++i) a.push_back(std::sin(static_cast<float>(i)) * 20);
  const RowDivergence r = compare_rows(a, a);
  EXPECT_EQ(r.kl, 0);
  EXPECT_EQ(r.logit_max, 0);
  EXPECT_TRUE(r.top1);
  EXPECT_EQ(r.top5, 1);
}

TEST(Divergence, SumsOverPositions) {
  Divergence d;
  d.add({.kl = 1, .top1 = true, .top5 = 1, .logit_max = 2});
  d.add({.kl = 3, .top1 = false, .top5 = 0.4, .logit_max = 1});
  d.add_next(std::log(0.5), std::log(0.25));
  EXPECT_EQ(d.positions(), 2);
  EXPECT_DOUBLE_EQ(d.kl_mean(), 2);
  EXPECT_DOUBLE_EQ(d.kl_99(), 2.98);
  EXPECT_DOUBLE_EQ(d.kl_max(), 3);
  EXPECT_DOUBLE_EQ(d.top1(), 0.5);
  EXPECT_DOUBLE_EQ(d.top5(), 0.7);
  EXPECT_DOUBLE_EQ(d.logit_max, 2);
  EXPECT_NEAR(d.perplexity_a(), 2, 1e-12);
  EXPECT_NEAR(d.perplexity_b(), 4, 1e-12);
  EXPECT_EQ(Divergence().kl_mean(), 0);
}

TEST(Divergence, BucketsGrowFourfold) {
  const std::pair<int64_t, const char*> cases[] = {{0, "0-15"},    {15, "0-15"},    {16, "16-63"},    {63, "16-63"},
                                                   {64, "64-255"}, {255, "64-255"}, {256, "256-1023"}};
  for (const auto& [position, name] : cases) EXPECT_EQ(bucket_name(position_bucket(position)), name) << position;
}

TEST(RowSpill, GivesBackWhatWasKept) {
  RowSpill spill("");
  const at::Tensor a = at::arange(12).to(at::kFloat).view({3, 4}), b = at::full({2, 5}, 1.5).to(at::kBFloat16);
  spill.append(a.t());
  spill.append(b);
  EXPECT_TRUE(spill.read(0).equal(a.t()));
  EXPECT_TRUE(spill.read(1).equal(b));
  EXPECT_EQ(spill.read(1).scalar_type(), at::kBFloat16);
  EXPECT_EQ(spill.bytes(), 48u + 20u);
  EXPECT_THROW(RowSpill("/nowhere/at/all"), Error);
}

class Files : public testing::Test {
 protected:
  Files() : folder(testing::TempDir() + "eval_" + testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directories(folder);
  }
  ~Files() override { std::filesystem::remove_all(folder); }
  std::string file(const std::string& name, const std::string& text) {
    std::ofstream(folder + "/" + name, std::ios::binary) << text;
    return folder + "/" + name;
  }
  template <class F>
  std::string fault(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.message();
    }
    return "no error";
  }
  std::string folder;
};

TEST_F(Files, RowsOfAParquetAreTheDocumentsOfTheSameLines) {
  const std::string folder = std::string(STATERA_SOURCE_DIR) + "/tests/golden/parquet/";
  const auto rows = read_documents(folder + "texts.parquet", "body"), lines = read_documents(folder + "texts.jsonl", "body");
  ASSERT_EQ(rows.size(), lines.size());
  ASSERT_GT(rows.size(), 3u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].text, lines[i].text);
  EXPECT_TRUE(rows[2].where.ends_with("texts.parquet: row 2"));
  EXPECT_NE(fault([&] { read_documents(folder + "texts.parquet", ""); }).find("has no column text (it has body, "), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(folder + "texts.parquet", "bodi"); }).find("did you mean \"body\"?"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(folder + "texts.parquet", "number"); }).find("column number is int64, not text"), std::string::npos);
}

TEST_F(Files, DocumentsOfEveryKind) {
  EXPECT_EQ(read_documents(file("a.txt", "One\n\nTwo\n"), "").at(0).text, "One\n\nTwo\n");
  const auto lines = read_documents(file("b.jsonl", "{\"text\": \"x\"}\n\n\"y\"\n{\"text\": \" \"}\n"), "");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].text, "y");
  EXPECT_TRUE(lines[1].where.ends_with("b.jsonl: line 3"));
  EXPECT_EQ(read_documents(file("c.json", R"([{"body": "x"}, {"body": "z"}])"), "body").at(1).text, "z");
  EXPECT_EQ(read_documents(file("d.json", R"({"text": "x"})"), "").size(), 1u);
  EXPECT_EQ(read_documents(file("e.txt.zst", zst_raw("One\n\nTwo\n")), "").at(0).text, "One\n\nTwo\n");
  const auto packed = read_documents(file("f.jsonl.zst", zst_raw("{\"text\": \"x\"}\n\"y\"\n")), "");
  ASSERT_EQ(packed.size(), 2u);
  EXPECT_TRUE(packed[1].where.ends_with("f.jsonl.zst: line 2"));
  EXPECT_EQ(packed[1].text, "y");
}

TEST_F(Files, BrokenDocumentsAreNamedByFileAndLine) {
  EXPECT_NE(fault([&] { read_documents(file("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \n"), ""); }).find("a.jsonl: line 2"),
            std::string::npos);
  EXPECT_NE(fault([&] { read_documents(file("b.jsonl", "{\"body\": \"x\"}"), ""); }).find("PATH:FIELD"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(file("c.txt", " \n"), ""); }).find("holds no text"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(file("d.csv", "x"), ""); }).find(".txt, .jsonl and .json"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(file("p.jsonl.zst", "{}"), ""); }).find("not readable as Zstandard"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(file("p.parquet", "{}"), ""); }).find("p.parquet: is no Parquet file"), std::string::npos);
  EXPECT_NE(fault([&] { read_documents(folder + "/e.csv", ""); }).find("no such file"), std::string::npos);
}

TEST_F(Files, AFieldIsSplitFromThePath) {
  const std::string odd = file("a:b.txt", "x");
  EXPECT_EQ(split_field(odd).first, odd);
  EXPECT_EQ(split_field("wiki.jsonl:body"), (std::pair<std::string, std::string>{"wiki.jsonl", "body"}));
  EXPECT_EQ(split_field("c:/x.txt").second, "");
}

TEST_F(Files, QuestionsWithAnswersInEverySpelling) {
  file("p.png", "");
  const auto q =
      read_questions(file("q.jsonl", R"({"id": "a", "image": "p.png", "question": "?", "answers": ["x", 3, {"answer": "y"}], "more": 1})"
                                     "\n\n"
                                     R"({"image": ["p.png", "p.png"], "question": "!", "answer": 2.5})"
                                     "\n"),
                     folder);
  ASSERT_EQ(q.size(), 2u);
  EXPECT_EQ(q[0].answers, (std::vector<std::string>{"x", "3", "y"}));
  EXPECT_EQ(q[0].id, Json("a"));
  EXPECT_EQ(q[1].id, Json(3)) << "the line's number";
  EXPECT_EQ(q[1].images.size(), 2u);
  EXPECT_EQ(q[1].answers, std::vector<std::string>{"2.5"});
}

TEST_F(Files, BrokenQuestionsAreNamedByFileAndLine) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"image": "gone.png", "question": "?", "answer": "x"})", "gone.png: no such picture"},
      {R"({"question": "?"})", "neither \"answers\" nor \"answer\""},
      {R"({"answer": "x"})", "question"},
      {R"({"question": "?", "answers": []})", "empty list"},
      {R"({"question": 3, "answer": "x"})", "question"},
      {R"(["question"])", "expected an object"},
      {R"({"question": "?", "answer": "x")", "line 2"},
      {R"({"id": "first", "question": "?", "answer": "x"})", "occurs twice"},
  };
  for (const auto& [line, what] : cases) {
    const std::string path = file("q.jsonl", std::string("{\"id\": \"first\", \"question\": \"?\", \"answer\": \"x\"}\n") + line + "\n");
    const std::string said = fault([&] { read_questions(path, folder); });
    EXPECT_NE(said.find("q.jsonl: line 2"), std::string::npos) << said;
    EXPECT_NE(said.find(what), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace statera
