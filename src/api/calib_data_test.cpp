// Calibration data as MBQ reads and arranges it: pile blocks, pairs, interleaved text, and the other parity switches (MBQ 3 and 8.20-22).
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "api/quantize.h"
#include "ckpt/test_files.h"
#include "quant/calib/numpy_order.h"
#include "quant/calib/parity.h"
#include "quant/calib/test_samples.h"

namespace statera {
namespace {
using namespace calib_test;

const Opened& tiny() {
  static const Opened opened(root("examples/tiny-qwen3-vl"));
  return opened;
}

std::vector<int64_t> ids_of(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return {c.const_data_ptr<int64_t>(), c.const_data_ptr<int64_t>() + c.numel()};
}

// count words, the first of which names the document.
std::string document(int64_t name, int64_t count) {
  std::string out = "document " + std::to_string(name);
  for (int64_t i = 0; i < count; ++i) out += " word" + std::to_string(i * 7 % 10);
  return out;
}

class Arranged : public ::testing::Test {
 protected:
  // Six conversations, some with pictures; read in NumPy's order, so that a test knows what follows what.
  void SetUp() override {
    const std::vector<std::string> pictures{"shapes_a.png", "", "chart.png", "shapes_b.png", "", "words.png"};
    Json list = Json::array();
    for (size_t i = 0; i < pictures.size(); ++i) {
      const std::string number = std::to_string(i);
      const bool sees = !pictures[i].empty();
      list.push(llava(sees ? std::vector<std::string>{picture(pictures[i])} : std::vector<std::string>{},
                      {(sees ? "<image>\n" : "") + ("What is number " + number) + "?", "It is number " + number + "."}));
    }
    write_text(dir / "talks.json", list.dump());
    std::string lines;
    for (int64_t i = 0; i < 12; ++i) {
      Json line = Json::object();
      line.set("body", document(i, i % 2 == 0 ? 400 : 20));
      lines += line.dump() + "\n";
    }
    write_text(dir / "texts.jsonl", lines);
    plain.data = {dir / "talks.json"};
    plain.parity = {"numpy-shuffle"};
    plain.n_samples = 6;
    plain.max_seq_len = 8000;
  }
  TempDir dir;
  CalibOptions plain;
};

TEST_F(Arranged, NumpysShuffleIsTheOrderOfTheItems) {
  const CalibData data = tiny().data(plain);
  const std::vector<size_t> order = numpy_order(6);
  ASSERT_EQ(data.samples.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_TRUE(data.samples[i].where.ends_with("item " + std::to_string(order[i])));
}

TEST_F(Arranged, FewShotPutsOneConversationBehindTheOtherAndLosesNoToken) {
  const CalibData singles = tiny().data(plain);
  CalibOptions o = plain;
  o.few_shot = true;
  const CalibData pairs = tiny().data(o);
  ASSERT_EQ(pairs.samples.size(), 3u);
  for (size_t p = 0; p < 3; ++p) {
    const CalibSample &a = singles.samples[2 * p], &b = singles.samples[2 * p + 1], &s = pairs.samples[p];
    EXPECT_TRUE(at::equal(s.ids_T, at::cat({a.ids_T, b.ids_T})));
    EXPECT_TRUE(at::equal(s.kinds_T, at::cat({a.kinds_T, b.kinds_T})));
    EXPECT_TRUE(at::equal(s.answers_T, at::cat({a.answers_T, b.answers_T})));
    // True positions of the whole: those of the second conversation, moved behind the first.
    EXPECT_TRUE(at::equal(s.positions.slice(-1, 0, a.tokens()), a.positions));
    EXPECT_TRUE(at::equal(s.positions.slice(-1, a.tokens()), b.positions + a.positions.max() + 1));
    const ModelInputs in = pairs.inputs(p), x = singles.inputs(2 * p), y = singles.inputs(2 * p + 1);
    EXPECT_EQ(in.image_grid_thw.size(), x.image_grid_thw.size() + y.image_grid_thw.size());
    if (x.pixel_values.defined() && y.pixel_values.defined()) {
      EXPECT_TRUE(at::equal(in.pixel_values, at::cat({x.pixel_values, y.pixel_values})));
    }
    if (!x.pixel_values.defined() && y.pixel_values.defined()) { EXPECT_TRUE(at::equal(in.pixel_values, y.pixel_values)); }
  }
  EXPECT_EQ(pairs.summary.vision_tokens, singles.summary.vision_tokens);
  o.n_samples = 5;
  EXPECT_EQ(tiny().data(o).samples.size(), 2u);
}

TEST_F(Arranged, InterleavedTextStandsBetweenAndCountsAsAnswer) {
  const CalibData singles = tiny().data(plain);
  CalibOptions o = plain;
  o.interleave = dir / "texts.jsonl:body";
  const CalibData data = tiny().data(o);
  // Documents of more than 512 tokens in NumPy's order: the even ones.
  std::vector<std::vector<int64_t>> texts;
  for (size_t i : numpy_order(12)) {
    if (i % 2 == 0) texts.push_back(tiny().parts().tokenizer->encode(document(static_cast<int64_t>(i), 400)));
  }
  ASSERT_GT(texts[0].size(), 512u);
  ASSERT_EQ(data.samples.size(), 3u);
  for (size_t p = 0; p < 3; ++p) {
    const CalibSample &a = singles.samples[2 * p], &b = singles.samples[2 * p + 1], &s = data.samples[p];
    ASSERT_EQ(s.tokens(), a.tokens() + 512 + b.tokens());
    const int64_t at = a.tokens();
    EXPECT_TRUE(at::equal(s.ids_T.slice(0, 0, at), a.ids_T));
    EXPECT_EQ(ids_of(s.ids_T.slice(0, at, at + 512)), std::vector<int64_t>(texts[p].begin(), texts[p].begin() + 512));
    EXPECT_TRUE(at::equal(s.ids_T.slice(0, at + 512), b.ids_T));
    EXPECT_EQ(s.answers_T.slice(0, at, at + 512).sum().item<int64_t>(), 512);
    EXPECT_TRUE(at::equal(s.answers_T.slice(0, at + 512), b.answers_T));
    EXPECT_TRUE(at::equal(s.kinds_T.slice(0, at + 512), b.kinds_T));
    EXPECT_TRUE(at::equal(s.positions.slice(-1, at + 512), b.positions + a.positions.max() + 513));
    EXPECT_NO_THROW(data.inputs(p));
  }
  o.parity = {"numpy-shuffle,interleave-even-texts"};
  const CalibData even = tiny().data(o);
  const int64_t at = singles.samples[2].tokens();
  EXPECT_EQ(ids_of(even.samples[1].ids_T.slice(0, at, at + 512)), std::vector<int64_t>(texts[2].begin(), texts[2].begin() + 512));
}

TEST_F(Arranged, JoinedSamplesAreCutButNeverThroughAPicture) {
  const CalibData singles = tiny().data(plain);
  CalibOptions o = plain;
  o.few_shot = true;
  int64_t longest = 0;
  for (const CalibSample& s : tiny().data(o).samples) longest = std::max(longest, s.tokens());
  o.max_seq_len = longest - 3;
  const CalibData cut = tiny().data(o);
  ASSERT_EQ(cut.samples.size(), 3u);
  EXPECT_EQ(cut.summary.longest, longest - 3);
  for (size_t p = 0; p < 3; ++p) EXPECT_NO_THROW(cut.inputs(p));
  o.max_seq_len = 30;
  const std::string none = message_of([&] { tiny().data(o); });
  EXPECT_EQ(none.find("usage: the calibration data gives no sample"), 0u) << none;
}

TEST_F(Arranged, WhatDoesNotFitTogetherIsRefused) {
  CalibOptions o = plain;
  o.interleave = dir / "texts.jsonl:body";
  o.n_samples = 40;  // more pairs than there are conversations: no matter
  EXPECT_EQ(tiny().data(o).samples.size(), 3u);
  write_text(dir / "short.txt", "a short text");
  o.interleave = dir / "short.txt";
  EXPECT_NE(message_of([&] { tiny().data(o); }).find("short.txt: has 0 documents of more than 512 tokens"), std::string::npos);
  o.interleave = dir / "talks.json";
  EXPECT_NE(message_of([&] { tiny().data(o); }).find("is a conversation; --interleave puts text"), std::string::npos);
  o.interleave = "";
  o.few_shot = true;
  o.data = {dir / "texts.jsonl:body"};
  EXPECT_NE(message_of([&] { tiny().data(o); }).find("is text; --few-shot"), std::string::npos);
}

TEST_F(Arranged, ExclusiveFlagsAreRefusedBeforeAnyWork) {
  QuantizeOptions o;
  o.model = "no such folder";
  o.out = dir / "out";
  o.method = "gptq";
  const auto refused = [&](const std::string& why) {
    EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: " + why), 0u) << message_of([&] { quantize(o); });
  };
  o.few_shot = true;
  refused("--few-shot and --interleave join conversations of --data");
  o.data = {"none.json"};
  o.interleave = "none.txt";
  refused("--few-shot and --interleave exclude each other");
  o.interleave = "";
  o.n_samples = 1;
  refused("--few-shot and --interleave make one sample of two");
  o.n_samples = 2;
  o.parity = {"numpy-shufle"};
  refused("--parity: unknown name \"numpy-shufle\"; did you mean \"numpy-shuffle\"?");
  o.parity = {"mbq-data"};
  o.method = "rtn";
  refused("method rtn looks at no data: leave out --data, --few-shot");
}

TEST_F(Arranged, TheLastTurnIsAnswerFromItsHeaderOn) {
  write_text(dir / "turns.json",
             Json(std::vector<Json>{llava({picture("chart.png")}, {"<image>\nfirst?", "one", "so\nwhat?", " two "})}).dump());
  CalibOptions o{.data = {dir / "turns.json"}, .n_samples = 1, .parity = {"qwen2vl-last-turn"}};
  const CalibData data = tiny().data(o);
  const CalibSample& s = data.samples.at(0);
  EXPECT_EQ(answers_of(data, s), "<|im_start|>assistant\n two <|im_end|>\n");
  EXPECT_EQ(s.answers_T[-1].item<int64_t>(), 1);
  const auto ids = ids_of(s.ids_T);
  EXPECT_EQ(data.parts.tokenizer->decode(ids).find("first"), std::string::npos);
  EXPECT_NE(data.parts.tokenizer->decode(ids).find("sowhat?"), std::string::npos);
  EXPECT_GT(data.summary.vision_tokens, 0);
}

TEST_F(Arranged, FlatPositionsCountTokensOnAllAxes) {
  CalibOptions o = plain;
  o.parity = {"numpy-shuffle", "flat-positions"};
  const CalibData flat = tiny().data(o), true_ones = tiny().data(plain);
  for (const CalibSample& s : flat.samples) {
    ASSERT_EQ(s.positions.dim(), 2);
    for (int64_t axis = 0; axis < 3; ++axis) EXPECT_TRUE(at::equal(s.positions[axis], at::arange(s.tokens())));
  }
  EXPECT_NE(flat.summary.hash, true_ones.summary.hash);
  EXPECT_FALSE(at::equal(flat.samples[0].positions, true_ones.samples[0].positions));
}

TEST_F(Arranged, PileBlocksAreCutFromWholeDocumentsOfAtMostABlock) {
  std::string lines;
  for (int64_t i = 0; i < 60; ++i) {
    Json line = Json::object();
    line.set("text", i % 9 == 4 ? "  \n" : "  " + document(i, i % 5 == 3 ? 400 : 30 + i) + "\n");
    lines += line.dump() + "\n";
  }
  write_text(dir / "pile.jsonl", lines);
  constexpr int64_t kDocuments = 30;
  std::vector<int64_t> stream;
  int64_t taken = 0, skipped = 0;
  for (size_t i : numpy_order(60)) {
    if (i % 9 == 4) continue;
    const auto ids = tiny().parts().tokenizer->encode(document(static_cast<int64_t>(i), i % 5 == 3 ? 400 : 30 + static_cast<int64_t>(i)));
    if (taken == kDocuments) break;
    skipped += ids.size() > 512;
    if (ids.size() > 512) continue;
    ++taken;
    stream.insert(stream.end(), ids.begin(), ids.end());
  }
  ASSERT_GT(skipped, 0);
  CalibOptions o{.data = {dir / "pile.jsonl"}, .n_samples = kDocuments, .parity = {"mbq-data"}};
  const CalibData data = tiny().data(o);
  ASSERT_EQ(data.samples.size(), stream.size() / 512);
  ASSERT_GT(data.samples.size(), 3u);
  for (size_t b = 0; b < data.samples.size(); ++b)
    EXPECT_EQ(ids_of(data.samples[b].ids_T),
              std::vector<int64_t>(stream.begin() + static_cast<ptrdiff_t>(b) * 512, stream.begin() + static_cast<ptrdiff_t>(b + 1) * 512));
  EXPECT_EQ(data.summary.answer_tokens, 0);
  o.max_seq_len = 256;
  EXPECT_EQ(message_of([&] { tiny().data(o); }).find("usage: --parity pile-blocks makes sequences of 512"), 0u);
}

TEST_F(Arranged, ADocumentOf512TokensIsABlockButNoInterleavedText) {
  const auto tokens = [](const std::string& text) { return tiny().parts().tokenizer->encode(text).size(); };
  std::string exact = "a text";
  while (tokens(exact) < 512) exact += " a";
  ASSERT_EQ(tokens(exact), 512u);
  write_text(dir / "exact.txt", exact);
  EXPECT_EQ(tiny().data({.data = {dir / "exact.txt"}, .n_samples = 1, .max_seq_len = 512, .parity = {"pile-blocks"}}).samples.size(), 1u);
  CalibOptions o = plain;
  o.interleave = dir / "exact.txt";
  o.n_samples = 2;
  EXPECT_NE(message_of([&] { tiny().data(o); }).find("has 0 documents of more than 512"), std::string::npos);
  write_text(dir / "exact.txt", exact + " a");
  EXPECT_EQ(tiny().data(o).samples.size(), 1u);
  EXPECT_NE(message_of([&] {
              tiny().data({.data = {dir / "exact.txt"}, .n_samples = 1, .max_seq_len = 512, .parity = {"pile-blocks"}});
            }).find("gives no sample"),
            std::string::npos);
}

TEST_F(Arranged, OnlyConversationsNeedTheMarkOfTurns) {
  PromptParts parts = tiny().parts();
  parts.tokenizer = Tokenizer::from_directory(root("src/text/testdata/pieces"));
  ASSERT_FALSE(parts.tokenizer->token_id("<|im_start|>"));
  std::string text;
  for (int64_t i = 0; i < 20; ++i) text += document(i, 50) + "\n\n";
  write_text(dir / "pile.txt", text);
  CalibOptions o{.data = {dir / "pile.txt"}, .n_samples = 20, .parity = {"mbq-data"}};
  EXPECT_GT(read_calibration(o, parts).samples.size(), 0u);
  o.data = plain.data;
  EXPECT_NE(message_of([&] { read_calibration(o, parts); }).find("needs a tokenizer that has <|im_start|>"), std::string::npos);
}

TEST(ParityNames, AreOneByOneOrAll) {
  EXPECT_TRUE(parse_parity({"flat-positions"}).flat_positions);
  EXPECT_TRUE(parse_parity({"flat-positions"}).reads_data());
  EXPECT_FALSE(parse_parity({"mbq-data"}).own_ranges);
  EXPECT_TRUE(parse_parity({"own-ranges"}).own_ranges);
  EXPECT_FALSE(parse_parity({"own-ranges"}).reads_data());
  EXPECT_FALSE(parse_parity({"flat-positions"}).numpy_shuffle);
  const Parity two = parse_parity({"numpy-shuffle, pile-blocks"}), all = parse_parity({"mbq-data"});
  EXPECT_TRUE(two.numpy_shuffle && two.pile_blocks && !two.last_turn);
  EXPECT_TRUE(all.numpy_shuffle && all.pile_blocks && all.last_turn && all.flat_positions && all.interleave_even_texts);
}

}  // namespace
}  // namespace statera
