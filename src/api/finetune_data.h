// finetune_data: the data files of a training run: found, opened, checked item by item and made into samples. Includes torch.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/finetune.h"
#include "data/records.h"
#include "train/order.h"
#include "train/sample.h"

namespace statera {

struct DataFile {
  std::string path;
  double percent = 100;
  std::string base_dir;  // of relative media paths
  std::shared_ptr<RecordFile> items;
};

// "PATH", "PATH%50", and the entries of a mix file. Error(not_found), bad_file, usage for shares that are none.
std::vector<DataFile> open_data(const std::vector<std::string>& paths, const std::string& mix, const std::string& base_dir);

// What is wrong with the data: counts by kind, and the first of each by name.
class DataReport {
 public:
  void good() { ++usable_; }
  void bad(const BadItem& e);
  int64_t usable() const { return usable_; }
  int64_t count() const;
  Json to_json() const;

 private:
  static constexpr size_t kExamples = 3;
  int64_t usable_ = 0;
  std::array<int64_t, kFaults> counts_{};
  std::array<std::vector<std::string>, kFaults> examples_;
};

class TrainData {
 public:
  TrainData(std::vector<DataFile> files, const PromptParts& parts, const MediaFlags& media, int64_t max_len)
      : files_(std::move(files)), parts_(parts), media_(media), max_len_(max_len) {}
  // Made samples are kept for the next time they are asked for, up to so many bytes of memory. Before the first sample.
  void cache(uint64_t bytes) { room_ = bytes; }
  const std::vector<DataFile>& files() const { return files_; }
  size_t items() const;
  // BadItem when it cannot be. From several threads.
  TrainSample sample(size_t file, size_t item) const;
  // Every item of every file: structure and files, or everything down to pixels.
  DataReport check(bool whole, const ProgressSink& sink, const std::atomic<bool>* cancel) const;

 private:
  Conversation conversation(size_t file, size_t item) const;
  SampleOptions options(size_t file) const;
  std::vector<DataFile> files_;
  const PromptParts& parts_;
  MediaFlags media_;
  int64_t max_len_;
  mutable std::mutex cache_lock_, table_lock_;
  mutable std::map<std::pair<size_t, size_t>, TrainSample> cache_;
  mutable uint64_t room_ = 0;
};

}  // namespace statera
