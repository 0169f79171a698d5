// As JSON in full, as text by role.
#include "quant/plan_details.h"

#include <fmt/format.h>

#include "base/strings.h"

namespace statera {

Json PlanDetails::to_json() const {
  Json j = Json::object(), list = Json::array(), refused = Json::array(), duration = Json::object();
  for (const Tensor& t : tensors) {
    Json one = Json::object();
    one.set("name", t.name);
    one.set("dtype", t.dtype);
    one.set("shape", Json(t.shape));
    one.set("bytes", t.bytes);
    one.set("role", t.role);
    one.set("quantized", t.quantized);
    one.set("precision", t.precision);
    list.push(std::move(one));
  }
  for (const auto& [target, reason] : refusals) {
    Json one = Json::object();
    one.set("target", target);
    one.set("reason", reason);
    refused.push(std::move(one));
  }
  duration.set("seconds", time.seconds);
  duration.set("weights", time.weights);
  duration.set("weights_per_second", time.weights_per_second);
  duration.set("operations", time.operations);
  duration.set("operations_per_second", time.operations_per_second);
  j.set("tensors", std::move(list));
  j.set("time", std::move(duration));
  j.set("disk_bytes", disk_bytes);
  j.set("refusals", std::move(refused));
  return j;
}

std::string PlanDetails::to_text() const {
  struct Sum {
    int64_t tensors = 0;
    uint64_t bytes = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  for (const Tensor& t : tensors) {
    Sum& s = sums[{t.role, t.precision}];
    ++s.tensors;
    s.bytes += t.bytes;
  }
  std::string out = fmt::format("{:<12}{:<44}{:>8}{:>14}\n", "role", "precision", "tensors", "bytes");
  for (const auto& [key, s] : sums) out += fmt::format("{:<12}{:<44}{:>8}{:>14}\n", key.first, key.second, s.tensors, s.bytes);
  out += fmt::format("disk needed: {}\n", human_bytes(static_cast<double>(disk_bytes)));
  out += fmt::format("time: about {} (rough: work counted, over {:.1f} M weights/s rounded and {:.1f} GFLOP/s of a matrix product, both measured "
                     "just now for a moment; reading and writing not counted)\n",
                     human_seconds(time.seconds), time.weights_per_second / 1e6, time.operations_per_second / 1e9);
  return out;
}

}  // namespace statera
