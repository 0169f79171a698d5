// Training runs over the example model: what is learned, what a folder holds, that a killed run goes on bit for bit, what bad data does.
#include "api/finetune.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "api/adapter.h"
#include "api/finetune_data.h"
#include "api/loaded.h"
#include "api/tensorboard.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "ckpt/test_files.h"
#include "nn/mixed.h"
#include "train/sample.h"

namespace statera {
namespace {
namespace fs = std::filesystem;

std::string root(const std::string& path) { return std::string(STATERA_SOURCE_DIR) + "/" + path; }
std::string example() { return root("examples/tiny-qwen3-vl"); }

Json talk(const std::string& picture, const std::string& question, const std::string& answer) {
  Json item = Json::object(), turns = Json::array();
  if (!picture.empty()) item.set("image", root("examples/pictures/" + picture));
  for (const auto& [from, value] : {std::pair{"human", (picture.empty() ? "" : "<image>\n") + question}, std::pair{"gpt", answer}}) {
    Json turn = Json::object();
    turn.set("from", from);
    turn.set("value", value);
    turns.push(std::move(turn));
  }
  item.set("conversations", std::move(turns));
  return item;
}

class Finetune : public testing::Test {
 protected:
  void SetUp() override {
    const char* pictures[] = {"shapes_a.png", "shapes_b.png", "words.png", "chart.png"};
    std::string text;
    for (int i = 0; i < 12; ++i) text += talk(i % 3 == 2 ? "" : pictures[i % 4], "What is number " + std::to_string(i) + "?", "It is the answer " + std::to_string(i * i) + ".").dump() + "\n";
    write_text(dir / "data.jsonl", text);
    o.model = example();
    o.out = dir / "run";
    o.data = {dir / "data.jsonl"};
    o.max_steps = 8;
    o.batch = 3;
    o.lr = 1e-3;
    o.save_every = 4;
    o.lanes = 2;
    media.max_pixels = 128 * 128;
  }
  std::vector<Json> log(const std::string& folder) const {
    std::vector<Json> out;
    for (const std::string& line : split(read_file(folder + "/log.jsonl"), '\n')) {
      if (!line.empty()) out.push_back(Json::parse(line, "log"));
    }
    return out;
  }
  std::vector<double> losses(const std::string& folder) const {
    std::vector<double> out;
    for (const Json& line : log(folder)) {
      if (line.has("loss")) out.push_back(line.at("loss").as_double());
    }
    return out;
  }
  std::string refused(const FinetuneOptions& options) const {
    try {
      finetune(options, media);
    } catch (const Error& e) {
      return e.message();
    }
    return "";
  }
  TempDir dir;
  FinetuneOptions o;
  MediaFlags media;
};

TEST_F(Finetune, WritesAModelALogAndCheckpoints) {
  o.eval_data = {dir / "data.jsonl"};
  o.eval_every = 4;
  const FinetuneReport report = finetune(o, media);
  EXPECT_EQ(report.steps, 8);
  EXPECT_LT(report.last_loss, report.first_loss);
  ASSERT_TRUE(report.eval_loss.has_value());
  const auto lines = log(o.out);
  ASSERT_EQ(lines.size(), 10u);  // eight steps, two evaluations
  for (const char* key : {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "learned_tokens", "tokens_per_second"}) EXPECT_TRUE(lines[0].has(key)) << key;
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"}) {
    EXPECT_TRUE(is_file(o.out + "/" + file)) << file;
    EXPECT_TRUE(is_file(o.out + "/checkpoint-8/" + file)) << file;
  }
  const Loaded trained = open_model(o.out, {}), before = open_model(example(), {});
  EXPECT_EQ(trained.checkpoint.names(), before.checkpoint.names());
  const std::string name = before.checkpoint.names().front();
  EXPECT_FALSE(at::equal(trained.checkpoint.tensor(name), before.checkpoint.tensor(name)));
}

TEST_F(Finetune, ARunThatWasStoppedGoesOnBitForBit) {
  o.max_steps = 60;  // long enough for an event to come between
  finetune(o, media);
  const auto whole = losses(o.out);
  ASSERT_EQ(whole.size(), 60u);
  FinetuneOptions again = o;
  again.out = dir / "stopped";
  std::atomic<bool> stop = false;
  const ProgressSink sink = [&](const ProgressEvent& e) { stop = stop || (e.job == "finetune" && e.done >= 1); };
  EXPECT_THROW(finetune(again, media, sink, &stop), Error);
  EXPECT_LT(losses(again.out).size(), 60u);
  again.workers = 0;  // changes nothing in what is computed
  const FinetuneReport resumed = finetune(again, media);
  EXPECT_GT(resumed.resumed_at, 0);
  EXPECT_EQ(losses(again.out), whole);
  EXPECT_EQ(read_file(again.out + "/model.safetensors"), read_file(o.out + "/model.safetensors"));
}

TEST_F(Finetune, WorkBehindTheLastCheckpointIsDoneAgainAfterAKill) {
  finetune(o, media);
  const auto whole = losses(o.out);
  // As a kill at step 7 leaves it: the checkpoint of step 4, a longer log with an unfinished line, a checkpoint being written.
  const std::string killed = dir / "killed";
  fs::copy(o.out, killed, fs::copy_options::recursive);
  fs::remove(killed + "/config.json");
  fs::remove(killed + "/model.safetensors");
  fs::rename(killed + "/checkpoint-8", killed + "/checkpoint-8.partial");
  write_text(killed + "/log.jsonl", read_file(killed + "/log.jsonl") + "{\"step\": 9, \"lo");
  FinetuneOptions again = o;
  again.out = killed;
  EXPECT_EQ(finetune(again, media).resumed_at, 4);
  EXPECT_EQ(losses(killed), whole);
}

// A run that ended at step 8, as a kill behind step 4's checkpoint leaves it.
void kill_behind_step_four(const std::string& out) {
  for (const char* name : {"config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"}) fs::remove(out + "/" + name);
  fs::remove_all(out + "/checkpoint-8");
}

TEST_F(Finetune, CodedMomentsAndDropoutGoOnBitForBit) {
  for (const char* states : {"8bit", "bf16", "dropout"}) {
    FinetuneOptions run = o;
    run.out = dir / states;
    if (states == std::string("dropout")) {
      run.lora_r = 4;
      run.lora_dropout = 0.2;
    } else {
      run.optim_states = states;
    }
    finetune(run, media);
    const auto whole = losses(run.out);
    const char* file = run.lora_r > 0 ? "/adapter_model.safetensors" : "/model.safetensors";
    const std::string weights = read_file(run.out + file);
    kill_behind_step_four(run.out);
    EXPECT_EQ(finetune(run, media).resumed_at, 4);
    EXPECT_EQ(losses(run.out), whole);
    EXPECT_EQ(read_file(run.out + file), weights);
  }
}

TEST_F(Finetune, DropoutIsWrittenIntoTheAdapter) {
  o.lora_r = 4;
  o.lora_dropout = 0.25;
  o.max_steps = 1;
  finetune(o, media);
  EXPECT_EQ(Json::read_file(o.out + "/adapter_config.json").at("lora_dropout").as_double(), 0.25);
  o.lora_r = 0;
  EXPECT_NE(refused(o).find("--lora-dropout goes with --lora-r"), std::string::npos) << refused(o);
}

TEST_F(Finetune, TensorBoardGetsWhatTheLogSaysOnceForEachStep) {
  o.report_to = "tensorboard";
  o.eval_data = {dir / "data.jsonl"};
  finetune(o, media);
  auto steps = [&](const std::string& folder) {
    std::vector<int64_t> out;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string bytes = read_file(entry.path());
      for (const auto event : event_records(bytes)) out.push_back(event_step(event));
    }
    return out;
  };
  const std::vector<int64_t> whole{0, 1, 2, 3, 4, 5, 6, 7, 8, 8};  // the version, eight steps, the held-out loss
  EXPECT_EQ(steps(o.out + "/runs"), whole);
  kill_behind_step_four(o.out);
  finetune(o, media);
  EXPECT_EQ(steps(o.out + "/runs"), whole);
  o.out = dir / "elsewhere";
  o.report_to = "";
  o.tensorboard = dir / "board";
  finetune(o, media);
  EXPECT_EQ(steps(dir / "board"), whole);
  EXPECT_FALSE(fs::exists(o.out + "/runs"));
  o.report_to = "wandb";
  EXPECT_NE(refused(o).find("--report-to must be tensorboard or none"), std::string::npos) << refused(o);
}

TEST_F(Finetune, ResultsDoNotDependOnThreads) {
  finetune(o, media);
  FinetuneOptions again = o;
  again.out = dir / "again";
  again.workers = 3;
  finetune(again, media);
  EXPECT_EQ(losses(again.out), losses(o.out));
}

TEST_F(Finetune, ProductsInBf16LearnMuchTheSame) {
  FinetuneOptions medium = o;
  medium.matmul_precision = "medium";
  medium.out = dir / "medium";
  if (!has_bf16_products()) {
    EXPECT_NE(refused(medium).find("needs bf16 products"), std::string::npos);
    return;
  }
  finetune(o, media);
  finetune(medium, media);
  const auto exact = losses(o.out), near = losses(medium.out);
  ASSERT_EQ(near.size(), exact.size());
  EXPECT_NE(near, exact);
  for (size_t i = 0; i < near.size(); ++i) EXPECT_NEAR(near[i], exact[i], 0.01 * exact[i]) << i;
  medium.out = dir / "adapters";
  medium.lora_r = 4;
  medium.max_steps = 2;
  EXPECT_GT(finetune(medium, media).first_loss, 0);
  medium.dtype = "bf16";
  EXPECT_NE(refused(medium).find("--matmul-precision medium goes with --dtype fp32"), std::string::npos) << refused(medium);
}

TEST_F(Finetune, GoesOnOnlyWithTheOptionsItBeganWith) {
  o.max_steps = 4;
  finetune(o, media);
  EXPECT_NE(refused(o).find("is finished"), std::string::npos);
  fs::remove(o.out + "/config.json");
  o.lr = 2e-3;
  EXPECT_NE(refused(o).find("lr was 0.001, is 0.002"), std::string::npos) << refused(o);
  o.restart = true;
  EXPECT_EQ(finetune(o, media).resumed_at, 0);
}

TEST_F(Finetune, BadItemsAreCountedByKindAndRefusedOrSkipped) {
  Json marks = talk("words.png", "x", "y");
  marks.set("image", Json(std::vector<std::string>{root("examples/pictures/words.png"), root("examples/pictures/chart.png")}));
  const std::string bad = "{\"conversations\": [\n" + talk("absent.png", "x", "y").dump() + "\n{\"conversations\": []}\n" + marks.dump() + "\n" +
                          talk("", "x", "").dump() + "\n{\"text\": \"x\"}\n";
  write_text(dir / "mixed.jsonl", read_file(dir / "data.jsonl") + bad);
  o.data = {dir / "mixed.jsonl"};
  const std::string message = refused(o);
  EXPECT_NE(message.find("6 of 18 items"), std::string::npos) << message;
  EXPECT_NE(message.find("line 13"), std::string::npos) << message;
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0);
  EXPECT_FALSE(fs::exists(o.out));
  o.check_only = true;
  const Json data = finetune(o, media).data;
  EXPECT_EQ(data.at("usable").as_int(), 12);
  for (const char* kind : {"broken JSON", "missing file", "empty conversation", "marks and media differ", "nothing to learn", "no conversation"})
    EXPECT_EQ(data.at("faults").at(kind).at("count").as_int(), 1) << kind;
  o.check_only = false;
  o.on_bad = "skip";
  o.max_steps = 0;
  o.epochs = 2;
  const FinetuneReport report = finetune(o, media);
  EXPECT_GE(report.skipped, 6);
  EXPECT_EQ(report.steps, 8);  // 24 good items, three a step
}

TEST_F(Finetune, OverLongTextIsCutAndPicturesAreNot) {
  std::string words;
  for (int i = 0; i < 400; ++i) words += "word " + std::to_string(i) + " ";
  write_text(dir / "long.json", Json(std::vector<Json>{talk("", "x", words), talk("shapes_a.png", "x", words), talk("", words, "y")}).dump());
  o.data = {dir / "long.json"};
  o.check_only = o.check_samples = true;
  o.max_len = 60;
  const Json wide = finetune(o, media).data;
  EXPECT_EQ(wide.at("usable").as_int(), 2) << wide.dump();
  EXPECT_EQ(wide.at("faults").at("nothing to learn").at("count").as_int(), 1) << wide.dump();
  o.max_len = 12;
  const Json narrow = finetune(o, media).data;
  EXPECT_EQ(narrow.at("usable").as_int(), 1) << narrow.dump();
  EXPECT_EQ(narrow.at("faults").at("over-long").at("count").as_int(), 1) << narrow.dump();
}

TEST_F(Finetune, LabelsAreTheAnswersAndTheirEndsWhateverTheUserWrites) {
  const Loaded loaded = open_model(example(), {});
  const PromptParts parts = read_prompt_parts(example(), *loaded.model);
  const Json item = talk("", "Reply as:\nassistant\nfoo bar", "A cat.");
  const TrainSample s = make_train_sample(training_conversation(item, "x"), parts, {}, "x");
  std::vector<int64_t> learned;
  for (int64_t i = 0; i < s.tokens(); ++i) {
    if (s.learned_T[i].item<int64_t>()) learned.push_back(s.inputs.input_ids[i].item<int64_t>());
  }
  EXPECT_EQ(parts.tokenizer->decode(learned, false), "A cat.<|im_end|>\n");
}

// Whether a sample was kept shows when its picture is gone. A kept one takes more than its elements: objects of tensors, their storages, the map's node.
TEST_F(Finetune, MadeSamplesAreKeptWhereThereIsRoomForAllThatTheyTake) {
  const Loaded loaded = open_model(example(), {});
  const PromptParts parts = read_prompt_parts(example(), *loaded.model);
  const std::string picture = dir / "picture.png";
  const auto is_kept = [&](uint64_t room) {
    fs::copy_file(root("examples/pictures/shapes_a.png"), picture, fs::copy_options::overwrite_existing);
    Json item = talk("shapes_a.png", "What is it?", "A shape.");
    item.set("image", picture);
    write_text(dir / "one.jsonl", item.dump() + "\n");
    TrainData data(open_data({dir / "one.jsonl"}, "", ""), parts, media, 512);
    data.cache(room);
    const TrainSample made = data.sample(0, 0);
    fs::remove(picture);
    try {
      const TrainSample again = data.sample(0, 0);
      EXPECT_TRUE(at::equal(made.inputs.pixel_values, again.inputs.pixel_values));
      EXPECT_TRUE(at::equal(made.inputs.input_ids, again.inputs.input_ids));
      return true;
    } catch (const BadItem& e) {
      EXPECT_EQ(e.fault(), Fault::missing_file);
      return false;
    }
  };
  TrainData data(open_data({dir / "data.jsonl"}, "", ""), parts, media, 512);
  const TrainSample alike = data.sample(0, 0);
  const uint64_t elements = alike.inputs.pixel_values.nbytes() + alike.inputs.input_ids.nbytes();
  EXPECT_FALSE(is_kept(0));
  EXPECT_FALSE(is_kept(elements + 512));
  EXPECT_TRUE(is_kept(2 * elements + 65536));
}

TEST_F(Finetune, AConfigFileSpeaksTheToolkitsNamesAndRefusesUnknownOnes) {
  write_text(dir / "c.json", R"({"learning_rate": 1e-3, "tune_mm_vision": false, "tune_mm_llm": false, "tune_mm_mlp": true, "train_embeddings": false})");
  o.config = dir / "c.json";
  o.lr = 0;
  const FinetuneReport report = finetune(o, media);
  const Loaded loaded = open_model(example(), {});
  int64_t mergers = 0;
  for (const auto& [path, site] : loaded.model->params.linears) mergers += site->role == Role::projector ? site->out * site->in + site->out : 0;
  for (const auto& [path, site] : loaded.model->params.tensors) mergers += path.find("merger") != path.npos && site->role == Role::norm ? site->shape[0] : 0;
  EXPECT_EQ(report.trained, mergers);
  write_text(dir / "c.json", R"({"tune_mm_visio": true})");
  o.out = dir / "other";
  EXPECT_NE(refused(o).find("unknown key \"tune_mm_visio\""), std::string::npos) << refused(o);
}

TEST_F(Finetune, AMixTakesSharesOfItsFiles) {
  write_text(dir / "mix.json", R"([{"data": "data.jsonl", "percent": 50}, {"data": "data.jsonl"}])");
  o.mix = dir / "mix.json";
  o.data = {(dir / "data.jsonl") + "%25"};
  o.max_steps = 0;
  EXPECT_EQ(finetune(o, media).steps, 7);  // 3 + 6 + 12 conversations, three a step
}

TEST_F(Finetune, AdaptersLearnLeaveTheBaseAloneAndMergeIntoIt) {
  o.lora_r = 4;
  o.lr = 1e-2;
  o.max_steps = 12;
  const FinetuneReport report = finetune(o, media);
  EXPECT_LT(report.last_loss, report.first_loss);
  EXPECT_TRUE(is_file(o.out + "/adapter_config.json"));
  EXPECT_FALSE(is_file(o.out + "/model.safetensors"));
  MergeOptions m{o.out, "", dir / "merged", "fp32"};
  EXPECT_EQ(merge(m).layers, 16);  // four layers, q, k, v and o
  const Loaded merged = open_model(dir / "merged", {}), base = open_model(example(), {});
  for (const auto& [path, site] : merged.model->params.linears) {
    const at::Tensor before = base.model->params.linears.at(path)->weight->dense().to(at::kFloat);
    EXPECT_EQ(at::equal(site->weight->dense(), before), path.find("language_model") == path.npos || path.find("self_attn") == path.npos) << path;
  }
}

}  // namespace
}  // namespace statera
