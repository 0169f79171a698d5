// See finetune_data.h.
#include "api/finetune_data.h"

#include <ATen/ThreadLocalState.h>
#include <fmt/format.h>

#include <charconv>
#include <mutex>

#include "api/paths.h"
#include "base/fields.h"
#include "base/file.h"
#include "base/strings.h"
#include "base/threads.h"

namespace statera {
namespace {

DataFile open_file(std::string path, double percent, std::string base_dir) {
  if (!(percent > 0)) throw Error(ErrorKind::usage, path + ": a share of " + std::to_string(percent) + " percent");
  if (!is_file(path)) throw Error(ErrorKind::not_found, path + ": no such file");
  DataFile out{path, percent, base_dir.empty() ? folder_of(path) : std::move(base_dir), nullptr};
  out.items = std::make_shared<RecordFile>(path);
  return out;
}

// "FILE%50"; a file whose name really ends so comes first.
DataFile open_named(const std::string& text, const std::string& base_dir) {
  const size_t at = text.rfind('%');
  if (is_file(text) || at == text.npos) return open_file(text, 100, base_dir);
  double percent = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data() + at + 1, end, percent);
  if (code != std::errc() || stop != end) return open_file(text, 100, base_dir);
  return open_file(text.substr(0, at), percent, base_dir);
}

struct MixEntry {
  std::string data, base_dir;
  double percent = 100;
  template <class V>
  void fields(V& v) {
    v("data", data, "");
    v("percent", percent, "");
    v("base_dir", base_dir, "");
  }
};

std::string beside(const std::string& folder, const std::string& path) {
  return path.empty() || path.starts_with('/') || folder.empty() ? path : folder + "/" + path;
}

}  // namespace

std::vector<DataFile> open_data(const std::vector<std::string>& paths, const std::string& mix, const std::string& base_dir) {
  std::vector<DataFile> out;
  for (const std::string& path : paths) out.push_back(open_named(path, base_dir));
  if (!mix.empty()) {
    const Json list = Json::read_file(mix);
    size_t number = 0;
    for (const Json& item : list.as_array(mix)) {
      const std::string where = mix + ": entry " + std::to_string(number++);
      MixEntry entry;
      fields_from_json(item, entry, where);
      if (entry.data.empty()) throw Error(ErrorKind::bad_file, where + ": data: missing");
      with_context(where, [&] { out.push_back(open_file(beside(folder_of(mix), entry.data), entry.percent, beside(folder_of(mix), entry.base_dir))); });
    }
  }
  return out;
}

void DataReport::bad(const BadItem& e) {
  const auto f = static_cast<size_t>(e.fault());
  ++counts_[f];
  if (examples_[f].size() < kExamples) examples_[f].push_back(e.message());
}

int64_t DataReport::count() const {
  int64_t sum = 0;
  for (int64_t c : counts_) sum += c;
  return sum;
}

Json DataReport::to_json() const {
  Json out = Json::object(), faults = Json::object();
  out.set("usable", usable_);
  out.set("bad", count());
  for (size_t f = 0; f < counts_.size(); ++f) {
    if (counts_[f] == 0) continue;
    Json one = Json::object();
    one.set("count", counts_[f]);
    one.set("examples", Json(examples_[f]));
    faults.set(to_string(static_cast<Fault>(f)), std::move(one));
  }
  out.set("faults", std::move(faults));
  return out;
}

size_t TrainData::items() const {
  size_t n = 0;
  for (const DataFile& f : files_) n += f.items->size();
  return n;
}

SampleOptions TrainData::options(size_t file) const { return {media_options(media_, files_[file].base_dir), max_len_}; }

Conversation TrainData::conversation(size_t file, size_t item) const {
  const RecordFile& items = *files_[file].items;
  const std::string where = items.where(item);
  Json json;
  std::unique_lock one_at_a_time(table_lock_, std::defer_lock);
  if (reads_as(files_[file].path, ".parquet")) one_at_a_time.lock();
  try {
    json = items.item(item);
  } catch (const Error& e) {
    throw BadItem(Fault::broken, e);
  }
  return training_conversation(json, where);
}

// What a kept sample takes besides its elements: itself and its small vectors; an object for each tensor and its storage, and the gaps between.
constexpr uint64_t kSampleBytes = sizeof(TrainSample) + 256, kTensorBytes = 640;

TrainSample TrainData::sample(size_t file, size_t item) const {
  {
    const std::lock_guard hold(cache_lock_);
    if (auto it = cache_.find({file, item}); it != cache_.end()) return it->second;
  }
  TrainSample made = make_train_sample(conversation(file, item), parts_, options(file), files_[file].items->where(item));
  const ModelInputs& in = made.inputs;
  uint64_t bytes = kSampleBytes + made.where.size();
  for (const at::Tensor& t : {in.input_ids, in.position_ids, in.pixel_values, in.pixel_values_videos, made.learned_T}) {
    if (t.defined()) bytes += t.storage().nbytes() + kTensorBytes;
  }
  const std::lock_guard hold(cache_lock_);
  if (bytes <= room_ && cache_.emplace(std::pair(file, item), made).second) room_ -= bytes;
  return made;
}

DataReport TrainData::check(bool whole, const ProgressSink& sink, const std::atomic<bool>* cancel) const {
  DataReport report;
  Progress progress("check data", static_cast<double>(items()), "items", sink);
  std::mutex lock;
  at::ThreadLocalState state;
  for (size_t f = 0; f < files_.size(); ++f) {
    std::vector<std::optional<BadItem>> found(files_[f].items->size());
    parallel_for(static_cast<int64_t>(found.size()), 1, [&](int64_t begin, int64_t end) {
      at::ThreadLocalStateGuard same(state);
      for (int64_t i = begin; i < end; ++i) {
        if (cancel && *cancel) throw Error(ErrorKind::interrupted, "interrupted");
        const auto item = static_cast<size_t>(i);
        try {
          if (whole) {
            sample(f, item);
          } else {
            check_media_files(conversation(f, item), options(f).media.fetch, files_[f].items->where(item));
          }
        } catch (const BadItem& e) {
          found[item] = e;
        }
        const std::lock_guard hold(lock);
        progress.advance(1, files_[f].path);
      }
    });
    for (const auto& bad : found) {
      if (bad) report.bad(*bad);
      else report.good();
    }
  }
  progress.finish();
  return report;
}

}  // namespace statera
