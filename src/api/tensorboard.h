// tensorboard: numbers of a training run as TensorBoard reads them: one event file of TFRecords (length, data, masked CRC-32C of both), each
// an Event message of protobuf with a Summary of scalars. Written by hand: of both formats only what scalars need. No torch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace statera {

class EventFile {
 public:
  // The run's file in `folder`, named after the run so that runs may share a folder. An earlier one goes on; what it says of steps behind
  // `step` is dropped, as is a record that was being written. Error(bad_file) for a file that holds something else.
  EventFile(const std::string& folder, const std::string& run, int64_t step);
  // A line of log.jsonl: "step", and numbers under the names that transformers gives them (train/loss, train/learning_rate, eval/loss).
  // Lines without numbers are left out.
  void add(const Json& line) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// ---- the format
uint32_t crc32c(std::string_view bytes);
// The frame around an event's bytes.
std::string event_record(std::string_view event);
// time: seconds since 1970.
std::string first_event(double time);
std::string scalars_event(double time, int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
// The records at the start of `bytes` that are whole and unspoilt.
std::vector<std::string_view> event_records(std::string_view bytes);
int64_t event_step(std::string_view event);

}  // namespace statera
