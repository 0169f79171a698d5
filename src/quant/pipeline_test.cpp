// The pipeline on toy checkpoints: what is selected, planned, written, resumed and refused.
#include "quant/pipeline.h"

#include <ATen/ops/equal.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <limits>
#include <set>

#include "ckpt/format.h"
#include "quant/sha256.h"
#include "quant/test_model.h"
#include "quant/test_output.h"

namespace statera {
namespace {
namespace fs = std::filesystem;

QuantizeSettings settings(int bits = 4, int64_t group = 32, bool symmetric = true) {
  QuantizeSettings s;
  s.plan.weights = {bits, group, symmetric};
  s.version = "0.0.test";
  return s;
}

std::vector<std::string> entries(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& e : fs::directory_iterator(folder)) out.push_back(e.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

// Without the report, which holds times.
std::vector<std::string> planned_entries(const std::string& folder) {
  std::vector<std::string> out = entries(folder);
  EXPECT_EQ(std::erase_if(out, [](const std::string& name) { return name == "report.json" || name == "report.html"; }), 2u);
  return out;
}

// Runs and returns the message of the Error it ends with; empty when it succeeds.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

class Pipeline : public ::testing::Test {
 protected:
  Pipeline() {
    fs::create_directory(dir_ / "in");
    tensors_ = toy_tensors(at::kBFloat16);
    write_toy(dir_ / "in", tensors_);
  }
  QuantizeReport run(const QuantizeSettings& s, const std::string& out = "out", const QuantizeHooks& hooks = {}) {
    Toy toy(dir_ / "in");
    return run_quantization(*toy.model, toy.source, s, dir_ / out, hooks);
  }
  at::Tensor source(const std::string& name) const {
    for (const auto& [n, t] : tensors_) {
      if (n == name) return t;
    }
    throw Bug("no " + name);
  }
  TempDir dir_;
  NamedTensors tensors_;
};

// The layer as the project's own reader sees it.
QTensor reopened(const Checkpoint& c, const std::string& path, int64_t out, int64_t in) {
  std::optional<ActQuant> act;
  const Json& config = *c.quantization_config();
  return format_of(config, "config").read(c, config, path, out, in, act)->unpack().value();
}

TEST_F(Pipeline, QuantizedAndReopenedEqualsRtnOfTheSource) {
  for (int bits : {2, 3, 4, 5, 6, 7, 8}) {
    for (bool symmetric : {true, false}) {
      for (int64_t group : {int64_t{32}, int64_t{-1}}) {
        SCOPED_TRACE(std::to_string(bits) + (symmetric ? " sym " : " asym ") + std::to_string(group));
        QuantizeSettings s = settings(bits, group, symmetric);
        s.overwrite = true;
        const QuantizeReport report = run(s);
        EXPECT_EQ(report.verified.layers_decoded, 8);
        const Checkpoint c = Checkpoint::open(dir_ / "out");
        for (const auto& layer : report.layers) {
          const at::Tensor w = source(layer.name + ".weight");
          const QTensor q = reopened(c, layer.name, w.size(0), w.size(1)), expected = rtn(w, s.plan.weights);
          EXPECT_TRUE(at::equal(q.q, expected.q)) << layer.name;
          EXPECT_TRUE(at::equal(q.dequantize(), expected.dequantize())) << layer.name;
          EXPECT_GT(layer.error, 0);
        }
        EXPECT_EQ(report.layers.size(), 7u * 3);
      }
    }
  }
}

TEST_F(Pipeline, KeptTensorsAreCopiedToTheBitAndNothingIsLost) {
  const QuantizeReport report = run(settings());
  const Checkpoint c = Checkpoint::open(dir_ / "out");
  std::set<std::string> quantized;
  for (const auto& layer : report.layers) quantized.insert(layer.name + ".weight");
  for (const auto& [name, t] : tensors_) {
    if (quantized.count(name)) {
      EXPECT_FALSE(c.has(name));
      EXPECT_TRUE(c.has(name + "_packed"));
    } else {
      EXPECT_TRUE(at::equal(c.tensor(name), t)) << name;
    }
  }
  EXPECT_EQ(c.names().size(), tensors_.size() + 2 * quantized.size());
  int64_t layers = 0, tensors = 0;
  for (const auto& r : report.roles) {
    layers += r.quantized_layers;
    tensors += r.kept_tensors;
  }
  EXPECT_EQ(static_cast<size_t>(layers + tensors), tensors_.size());
}

TEST_F(Pipeline, PlanKnowsEveryByteBeforehand) {
  for (uint64_t shard : {uint64_t{5'000'000'000}, uint64_t{20'000}}) {
    for (int bits : {3, 4, 8}) {
      for (bool symmetric : {true, false}) {
        QuantizeSettings s = settings(bits, 32, symmetric);
        s.plan.max_shard_bytes = shard;
        s.overwrite = true;
        Toy toy(dir_ / "in");
        const QuantizeReport planned = plan_quantization(*toy.model, toy.source, s, dir_ / "out");
        run(s);
        uint64_t written = 0;
        std::map<std::string, uint64_t> sizes(planned.files.begin(), planned.files.end());
        const std::vector<std::string> files = planned_entries(dir_ / "out");
        for (const auto& name : files) {
          EXPECT_EQ(sizes.at(name), file_size((dir_ / "out") + "/" + name)) << name;
          written += file_size((dir_ / "out") + "/" + name);
        }
        EXPECT_EQ(planned.disk_bytes(), written);
        EXPECT_EQ(planned.files.size(), files.size());
        EXPECT_EQ(fs::exists((dir_ / "out") + "/model.safetensors.index.json"), shard == 20'000);
      }
    }
  }
}

TEST_F(Pipeline, PlanWritesNothing) {
  Toy toy(dir_ / "in");
  plan_quantization(*toy.model, toy.source, settings(), dir_ / "out");
  EXPECT_EQ(entries(dir_), std::vector<std::string>{"in"});
}

TEST_F(Pipeline, StoppedAfterAnyUnitAndResumedGivesTheSameBytes) {
  QuantizeSettings s = settings(4, 32, false);
  s.plan.max_shard_bytes = 30'000;
  const QuantizeReport whole = run(s, "whole");
  const auto expected = output_digests(dir_ / "whole");
  for (size_t stop = 1; stop < static_cast<size_t>(whole.units); ++stop) {
    SCOPED_TRACE(stop);
    struct Killed {};
    QuantizeHooks hooks;
    hooks.after_unit = [&](size_t done) {
      if (done == stop) throw Killed{};
    };
    EXPECT_THROW(run(s, "out", hooks), Killed);
    EXPECT_FALSE(fs::exists(dir_ / "out"));
    const QuantizeReport resumed = run(s);
    EXPECT_GE(resumed.resumed_units, static_cast<int64_t>(stop));
    EXPECT_EQ(output_digests(dir_ / "out"), expected);
    EXPECT_EQ(resumed.layers.size(), whole.layers.size());
    for (size_t i = 0; i < whole.layers.size(); ++i) EXPECT_EQ(resumed.layers[i].error, whole.layers[i].error);
    fs::remove_all(dir_ / "out");
  }
  EXPECT_EQ(entries(dir_), (std::vector<std::string>{"in", "whole"}));
}

TEST_F(Pipeline, TornJournalLineIsDropped) {
  struct Killed {};
  QuantizeHooks hooks;
  hooks.after_unit = [&](size_t done) {
    if (done == 2) throw Killed{};
  };
  EXPECT_THROW(run(settings(), "out", hooks), Killed);
  for (const auto& name : entries(dir_)) {
    if (name == "in") continue;
    const std::string journal = (dir_ / name) + "/journal.jsonl";
    fs::resize_file(journal, file_size(journal) - 5);
  }
  EXPECT_GE(run(settings()).resumed_units, 1);
}

TEST_F(Pipeline, UnfinishedWorkOfOtherOptionsIsRefusedAndRestartRemovesIt) {
  struct Killed {};
  QuantizeHooks hooks;
  hooks.after_unit = [](size_t) { throw Killed{}; };
  EXPECT_THROW(run(settings(4), "out", hooks), Killed);
  EXPECT_NE(message_of([&] { run(settings(3)); }).find("--restart"), std::string::npos);
  QuantizeSettings s = settings(3);
  s.restart = true;
  EXPECT_EQ(run(s).resumed_units, 0);
  EXPECT_EQ(entries(dir_), (std::vector<std::string>{"in", "out"}));
}

TEST_F(Pipeline, ChangedSourceDoesNotResume) {
  struct Killed {};
  QuantizeHooks hooks;
  hooks.after_unit = [](size_t) { throw Killed{}; };
  EXPECT_THROW(run(settings(), "out", hooks), Killed);
  tensors_ = toy_tensors(at::kBFloat16, 2);
  write_toy(dir_ / "in", tensors_);
  EXPECT_NE(message_of([&] { run(settings()); }).find("changed source"), std::string::npos);
}

TEST_F(Pipeline, CancelKeepsFinishedUnits) {
  std::atomic<bool> cancel{false};
  QuantizeHooks hooks;
  hooks.cancel = &cancel;
  hooks.after_unit = [&](size_t) { cancel = true; };
  EXPECT_NE(message_of([&] { run(settings(), "out", hooks); }).find("goes on from there"), std::string::npos);
  EXPECT_GE(run(settings()).resumed_units, 1);
}

TEST_F(Pipeline, BadWeightIsNamedAndLeavesNothing) {
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    NamedTensors tensors = toy_tensors(at::kBFloat16);
    for (auto& [name, t] : tensors) {
      if (name == "model.layers.1.mlp.down_proj.weight") t[5][7] = bad;
    }
    write_toy(dir_ / "in", tensors);
    const std::string message = message_of([&] { run(settings()); });
    EXPECT_NE(message.find("model.layers.1.mlp.down_proj.weight"), std::string::npos) << message;
    EXPECT_NE(message.find("NaN"), std::string::npos) << message;
    EXPECT_EQ(entries(dir_), std::vector<std::string>{"in"});
  }
}

TEST_F(Pipeline, FullDiskIsOneLineThatNamesTheFile) {
  struct rlimit old {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = old;
  small.rlim_cur = 20'000;
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = message_of([&] { run(settings()); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("model.safetensors"), std::string::npos) << message;
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_EQ(entries(dir_), std::vector<std::string>{"in"});
}

TEST_F(Pipeline, ExistingFolderIsKeptUnlessOverwriteIsGivenAndItIsACheckpoint) {
  fs::create_directory(dir_ / "out");
  run(settings());  // empty: taken
  EXPECT_NE(message_of([&] { run(settings()); }).find("not empty"), std::string::npos);
  QuantizeSettings s = settings(8);
  s.overwrite = true;
  run(s);
  fs::create_directory(dir_ / "photos");
  write_text(dir_ / "photos/cat.txt", "meow");
  EXPECT_NE(message_of([&] { run(s, "photos"); }).find("no checkpoint"), std::string::npos);
  EXPECT_TRUE(is_file(dir_ / "photos/cat.txt"));
  EXPECT_NE(message_of([&] { run(s, "in"); }).find("source"), std::string::npos);
  EXPECT_NE(message_of([&] { run(s, "."); }).find("source or holds it"), std::string::npos);
  EXPECT_NE(message_of([&] { run(s, "no/such/out"); }).find("no such directory"), std::string::npos);
}

TEST_F(Pipeline, QuantizedSourceIsRefused) {
  run(settings());
  Toy toy(dir_ / "out");
  EXPECT_NE(message_of([&] { run_quantization(*toy.model, toy.source, settings(), dir_ / "twice"); }).find("quantized already"),
            std::string::npos);
}

TEST_F(Pipeline, SideFilesAreCarriedAndPicklesAreNot) {
  const QuantizeReport report = run(settings());
  EXPECT_EQ(planned_entries(dir_ / "out"),
            (std::vector<std::string>{"chat_template.jinja", "config.json", "model.safetensors", "statera.json", "tokenizer.json"}));
  EXPECT_EQ(read_file(dir_ / "out/chat_template.jinja"), "{{ messages }}");
  EXPECT_TRUE(
      std::any_of(report.warnings.begin(), report.warnings.end(), [](const std::string& w) { return w.find("optimizer.bin") != w.npos; }));
  EXPECT_TRUE(std::any_of(report.warnings.begin(), report.warnings.end(),
                          [](const std::string& w) { return w.find("model.rotary.extra") != w.npos; }));
}

TEST_F(Pipeline, ManifestHoldsTheDigestOfEveryFileAndNoPath) {
  run(settings());
  const std::string text = read_file(dir_ / "out/statera.json");
  EXPECT_EQ(text.find(static_cast<const std::string&>(dir_)), std::string::npos);
  const Json manifest = Json::parse(text, "statera.json");
  EXPECT_EQ(manifest.at("files").as_array().size(), planned_entries(dir_ / "out").size() - 1);
  for (const Json& f : manifest.at("files").as_array()) {
    EXPECT_EQ(f.at("sha256").as_string(), sha256_file((dir_ / "out") + "/" + f.at("name").as_string()));
  }
  EXPECT_EQ(manifest.at("source").at("name").as_string(), "in");
}

TEST_F(Pipeline, ShardedSourceGivesTheSameLayers) {
  fs::create_directory(dir_ / "sharded");
  write_toy(dir_ / "sharded", tensors_, 3);
  run(settings());
  Toy toy(dir_ / "sharded");
  run_quantization(*toy.model, toy.source, settings(), dir_ / "out2");
  const Checkpoint a = Checkpoint::open(dir_ / "out"), b = Checkpoint::open(dir_ / "out2");
  ASSERT_EQ(a.names(), b.names());
  for (const auto& name : a.names()) EXPECT_TRUE(at::equal(a.tensor(name), b.tensor(name))) << name;
}

TEST_F(Pipeline, TooLittleMemoryIsSaidBeforeWork) {
  QuantizeSettings s = settings();
  s.max_ram = 1 << 20;
  EXPECT_NE(message_of([&] { run(s); }).find("--max-ram"), std::string::npos);
  EXPECT_EQ(entries(dir_), std::vector<std::string>{"in"});
}

TEST_F(Pipeline, EightBitActivationsWantChannelsAndSymmetry) {
  QuantizeSettings s = settings(8, -1, true);
  s.plan.act = ActQuant{8};
  const QuantizeReport report = run(s);
  const Checkpoint c = Checkpoint::open(dir_ / "out");
  EXPECT_EQ(c.find("model.layers.0.mlp.up_proj.weight")->dtype, at::kChar);
  std::optional<ActQuant> act;
  format_of(*c.quantization_config(), "config").read(c, *c.quantization_config(), "model.layers.0.mlp.up_proj", 96, 64, act);
  EXPECT_EQ(act, ActQuant{8});
  s.plan.weights.group = 32;
  EXPECT_NE(message_of([&] { run(s, "b"); }).find("--w-group -1"), std::string::npos);
  s.plan.weights = {8, -1, false};
  EXPECT_NE(message_of([&] { run(s, "b"); }).find("--sym"), std::string::npos);
}

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace statera
