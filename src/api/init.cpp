// Expected parameters of the model become a shard plan; each tensor is drawn in chunks on all threads and written in place.
#include "api/init.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <vector>

#include "api/guard.h"
#include "api/loaded.h"
#include "api/output_folder.h"
#include "api/presets.h"
#include "api/quantize.h"
#include "api/random_fill.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/threads.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/shards.h"

namespace statera {
namespace {

constexpr int64_t kChunk = 1 << 20;  // elements drawn and written at a time

// What lies beside a config.json and makes a checkpoint usable, besides weights.
constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.json",
                                       "chat_template.jinja",
                                       "preprocessor_config.json",
                                       "video_preprocessor_config.json",
                                       "processor_config.json"};

struct Source {
  Json config;
  std::string folder;  // of companions; empty for presets
};

Source read_source(const std::string& name) {
  const std::string folder = is_directory(name) ? name : is_file(name) ? std::filesystem::path(name).parent_path().string() : "";
  return {config_or_preset(name), folder};
}

template <class T>
void write_random(ShardFile& file, const TensorInfo& t, const RandomFill& random, Spread s) {
  const int64_t count = t.elements();
  parallel_for((count + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    std::vector<T> buffer;
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = c * kChunk, n = std::min(kChunk, count - begin);
      buffer.resize(static_cast<size_t>(n));
      random.fill(buffer.data(), static_cast<uint64_t>(begin), static_cast<uint64_t>(n), s.mean, s.deviation);
      file.write_bytes(t.name, static_cast<uint64_t>(begin) * sizeof(T), buffer.data(), buffer.size() * sizeof(T));
    }
  });
}

void write_tensor(ShardFile& file, const TensorInfo& t, uint64_t seed, Spread s) {
  const RandomFill random(seed, t.name);
  if (t.dtype == at::kBFloat16) return write_random<c10::BFloat16>(file, t, random, s);
  if (t.dtype == at::kHalf) return write_random<c10::Half>(file, t, random, s);
  write_random<float>(file, t, random, s);
}

void write_shards(const ShardPlan& plan, const std::unordered_map<std::string, Spread>& spreads, const std::string& folder, uint64_t seed,
                  Progress& progress, const std::atomic<bool>* cancel) {
  for (const ShardPlan::File& file : plan.files) {
    ShardFile shard(folder, file);
    for (const TensorInfo& t : file.plan.tensors) {
      if (cancel && *cancel) throw Error(ErrorKind::interrupted, "interrupted");
      write_tensor(shard, t, seed, spreads.at(t.name));
      progress.advance(static_cast<double>(t.bytes), t.name);
    }
    shard.sync();
  }
  if (const std::string index = plan.index_json(); !index.empty()) write_file_atomic(folder + "/model.safetensors.index.json", index);
}

// The config as it is written: the dtype of the weights, no quantization.
Json written_config(Json config, at::ScalarType dtype) {
  if (config.has("quantization_config")) {
    log_warn("init writes floating weights: quantization_config is left out");
    config.erase("quantization_config");
  }
  const char* name = dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32";
  auto set = [&](Json& j) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (j.has(key)) j.set(key, name);
    }
  };
  set(config);
  for (const char* part : {"text_config", "vision_config"}) {
    if (Json* j = config.find(part)) set(*j);
  }
  const Json* text = config.get("text_config");
  const bool stated = config.has("dtype") || config.has("torch_dtype") || (text && (text->has("dtype") || text->has("torch_dtype")));
  if (!stated) config.set("torch_dtype", name);
  return config;
}

}  // namespace

InitReport init(const InitOptions& options, const ProgressSink& sink, const std::atomic<bool>* cancel) {
  return guarded([&] {
    const auto start = std::chrono::steady_clock::now();
    if (options.seed < 0) throw Error(ErrorKind::usage, "--seed must not be negative");
    const Source source = read_source(options.config);
    const ModelType& type = with_context(options.config, [&]() -> const ModelType& { return model_type(source.config); });
    const at::ScalarType dtype = options.dtype.empty() ? stated_dtype(source.config).value_or(at::kBFloat16) : parse_dtype(options.dtype);
    const Layout layout = type.layouts.empty() ? Layout{} : type.layouts.front();
    std::vector<TensorPlan> tensors;
    std::unordered_map<std::string, Spread> spreads;
    InitReport report;
    for (const Expected& e : expected_parameters(type, source.config, [](const std::string&) { return true; })) {
      tensors.push_back({map_name(layout, e.name), dtype, e.shape});
      spreads.emplace(tensors.back().name, spread_of(e.name, e.shape, e.linear));
      int64_t n = 1;
      for (int64_t d : e.shape) n *= d;
      report.parameters += n;
    }
    const ShardPlan plan = plan_shards(tensors, parse_bytes(options.max_shard, "--max-shard"), torch_metadata(), report.parameters);
    OutputFolder folder(options.out, options.overwrite, "config.json", "checkpoint");
    Progress progress("init", static_cast<double>(plan.total_bytes), "bytes", sink);
    write_shards(plan, spreads, folder.path(), static_cast<uint64_t>(options.seed), progress, cancel);
    for (const char* name : kCompanions) {
      if (!source.folder.empty() && is_file(source.folder + "/" + name)) {
        write_file_atomic(folder.path() + "/" + name, read_file(source.folder + "/" + name));
      }
    }
    write_file_atomic(folder.path() + "/config.json", written_config(source.config, dtype).dump(2) + "\n");
    folder.commit();
    progress.finish();
    report.out = options.out;
    report.model_type = type.name;
    report.dtype = stored_type(dtype).name;
    report.seed = options.seed;
    report.bytes = static_cast<int64_t>(plan.total_bytes);
    report.files = static_cast<int64_t>(plan.files.size());
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
  });
}

Json InitReport::to_json() const {
  Json j = Json::object();
  j.set("out", out);
  j.set("model_type", model_type);
  j.set("dtype", dtype);
  j.set("seed", seed);
  j.set("parameters", parameters);
  j.set("bytes", bytes);
  j.set("files", files);
  j.set("seconds", seconds);
  j.set("bytes_per_second", seconds > 0 ? static_cast<double>(bytes) / seconds : 0.0);
  return j;
}

std::string InitReport::to_text() const {
  return fmt::format("{}: {}, {} parameters in {}, {} in {} file{}, {} ({}/s)", out, model_type,
                     human_count(static_cast<double>(parameters)), dtype, human_bytes(static_cast<double>(bytes)), files,
                     files == 1 ? "" : "s", human_seconds(seconds), human_bytes(static_cast<double>(bytes) / std::max(seconds, 1e-9)));
}

}  // namespace statera
