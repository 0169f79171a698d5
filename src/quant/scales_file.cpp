// Reading, writing, comparing, and the folding step.
#include "quant/scales_file.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "ckpt/safetensors_write.h"
#include "quant/calib/fold.h"
#include "quant/sha256.h"

namespace statera {
namespace {

constexpr const char* kVersionKey = "statera_scales";
constexpr const char *kClip = ".clip", *kMean = ".mean";

class ReuseStep : public Step {
 public:
  explicit ReuseStep(const ScaleSet& scales) : scales_(scales) {}
  bool only_scales() const override { return true; }

  void apply(BlockJob& job) override {
    const Topology topology = job.topology();
    for (const ScaleSet::Entry& e : scales_.entries) {
      if (e.block != job.name()) continue;
      auto group = std::find_if(topology.groups.begin(), topology.groups.end(), [&](const ScaleGroup& g) { return g.name == e.record.group; });
      if (group == topology.groups.end() || group->channels != e.record.scale_C.size(0))
        throw Error(ErrorKind::mismatch, scales_.path + ": " + e.block + " of this model has no group " + e.record.group + " of " +
                                             std::to_string(e.record.scale_C.size(0)) + " channels");
      ScaleRecord record = e.record;
      record.group.clear();
      record.readers.clear();
      fold_group(job, *group, std::move(record));
    }
  }

 private:
  const ScaleSet& scales_;
};

Json clip_json(const std::string& block, const ClipRecord& c) {
  Json j = Json::object();
  j.set("block", block);
  j.set("layer", c.layer);
  j.set("steps", c.steps);
  return j;
}

Json entry_json(const std::string& tensor, const std::string& block, const ScaleRecord& r) {
  Json j = Json::object();
  j.set("tensor", tensor);
  j.set("block", block);
  j.set("group", r.group);
  j.set("readers", Json(r.readers));
  j.set("ratio", r.ratio);
  j.set("losses", Json(r.losses));
  if (r.rho) j.set("rho", *r.rho);
  return j;
}

}  // namespace

void write_scales(const std::string& path, const Json& settings, const std::vector<JournalEntry>& units) {
  NamedTensors tensors;
  Json groups = Json::array(), clips = Json::array();
  std::map<std::string, int> times;
  for (const JournalEntry& unit : units) {
    for (const ScaleRecord& r : unit.scales) {
      std::string name = unit.unit + "." + r.group;
      if (const int nth = ++times[name]; nth > 1) name += "#" + std::to_string(nth);
      groups.push(entry_json(name, unit.unit, r));
      tensors.emplace_back(name, r.scale_C.to(at::kFloat));
      if (r.mean_abs_K.defined()) tensors.emplace_back(name + kMean, r.mean_abs_K);
    }
    for (const ClipRecord& c : unit.clips) {
      clips.push(clip_json(unit.unit, c));
      tensors.emplace_back(c.layer + kClip, c.shrink_NG);
    }
  }
  write_safetensors(path, tensors, {{kVersionKey, "2"}, {"settings", settings.dump()}, {"groups", groups.dump()}, {"clips", clips.dump()}});
}

ScaleSet read_scales(const std::string& path) {
  const SafetensorsFile file(path);
  std::map<std::string, std::string> text(file.metadata().begin(), file.metadata().end());
  if (text[kVersionKey] != "2") throw Error(ErrorKind::bad_file, path + ": holds no scales of a quantization (or of another version)");
  ScaleSet out{path, sha256_file(path), Json::parse(text["settings"], path), {}, {}};
  const Json groups = Json::parse(text["groups"], path);
  for (const Json& g : groups.as_array(path)) {
    ScaleSet::Entry e{g.at("block", path).as_string(path), {}};
    e.record.group = g.at("group", path).as_string(path);
    for (const Json& r : g.at("readers", path).as_array(path)) e.record.readers.push_back(r.as_string(path));
    e.record.ratio = g.at("ratio", path).as_double(path);
    for (const Json& l : g.at("losses", path).as_array(path)) e.record.losses.push_back(l.as_double(path));
    if (const Json* rho = g.get("rho")) e.record.rho = rho->as_double(path);
    const std::string tensor = g.at("tensor", path).as_string(path);
    e.record.scale_C = file.tensor(tensor).clone();
    if (file.find(tensor + kMean)) e.record.mean_abs_K = file.tensor(tensor + kMean).clone();
    if (e.record.scale_C.dim() != 1 || e.record.scale_C.scalar_type() != at::kFloat) throw Error(ErrorKind::bad_file, path + ": scales that are no row of F32");
    out.entries.push_back(std::move(e));
  }
  const Json clips = Json::parse(text["clips"], path);
  for (const Json& c : clips.as_array(path)) {
    ScaleSet::Clip clip{c.at("block", path).as_string(path), {c.at("layer", path).as_string(path), {}, c.at("steps", path).as_int(path)}};
    clip.record.shrink_NG = file.tensor(clip.record.layer + kClip);
    if (clip.record.shrink_NG.dim() != 2 || clip.record.shrink_NG.scalar_type() != at::kByte || clip.record.steps < 1)
      throw Error(ErrorKind::bad_file, path + ": ranges of " + clip.record.layer + " that are no matrix of U8");
    if (clip.record.steps > 256 || (clip.record.shrink_NG.numel() > 0 && clip.record.shrink_NG.max().item<int64_t>() >= clip.record.steps))
      throw Error(ErrorKind::bad_file, path + ": ranges of " + clip.record.layer + " that leave nothing");
    out.clips.push_back(std::move(clip));
  }
  return out;
}

void check_scales_fit(const ScaleSet& scales, const Json& settings, const std::vector<std::string>& keys) {
  auto text = [](const Json* j) { return j ? j->dump() : std::string("nothing"); };
  for (const std::string& key : keys) {
    const Json *theirs = scales.settings.find(key), *ours = settings.find(key);
    if (text(theirs) == text(ours)) continue;
    throw Error(ErrorKind::mismatch, scales.path + ": " + key + " is " + text(theirs) + " there, " + text(ours) + " in this run");
  }
}

Recipe reuse_scales(Recipe recipe, const ScaleSet& scales) {
  Recipe out;
  bool placed = false;
  for (auto& step : recipe) {
    if (!step->only_scales()) {
      out.push_back(std::move(step));
    } else if (!std::exchange(placed, true)) {
      out.push_back(std::make_unique<ReuseStep>(scales));
    }
  }
  if (!placed) throw Error(ErrorKind::usage, "--scales: this method chooses no scales");
  return out;
}

}  // namespace statera
