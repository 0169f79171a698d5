// Folders, the lock and the lines of the journal. A torn last line (killed while appending) is dropped.
#include "quant/staging.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "ckpt/safetensors_write.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kJournal = "journal.jsonl";
constexpr const char* kMark = ".partial-";
constexpr const char* kMean = ".mean";
constexpr size_t kIdLength = 16;

bool is_partial_of(const std::string& name, const std::string& target_name) {
  const std::string prefix = target_name + kMark;
  return name.size() == prefix.size() + kIdLength && name.starts_with(prefix) &&
         std::all_of(name.begin() + static_cast<ptrdiff_t>(prefix.size()), name.end(), [](unsigned char c) { return std::isxdigit(c); });
}

const Json::Array& array_of(const Json& j, size_t size, const char* what) {
  const auto& a = j.as_array(what);
  if (a.size() != size) throw Error(ErrorKind::bad_file, std::string(what) + ": expected " + std::to_string(size) + " entries");
  return a;
}

Json kind_to_json(const KindLoss& k) { return Json(Json::Array{k.error, k.rtn, k.output, k.rows, k.seen}); }

KindLoss kind_from_json(const Json& j) {
  const auto& a = array_of(j, 5, "kind");
  return {a[0].as_double(), a[1].as_double(), a[2].as_double(), a[3].as_int(), a[4].as_int()};
}

Json layer_to_json(const JournalEntry::Layer& l) {
  Json j = Json::object();
  j.set("name", l.name);
  j.set("weights", Json(Json::Array{l.error.error, l.error.weight}));
  if (l.loss) j.set("outputs", Json(Json::Array{l.loss->loss, l.loss->rtn, l.loss->output}));
  if (!l.evidence) return j;
  j.set("text", kind_to_json(l.evidence->text));
  j.set("vision", kind_to_json(l.evidence->vision));
  Json::Array top;
  for (const auto& [channel, value] : l.evidence->input.top) top.push_back(Json(Json::Array{channel, value}));
  j.set("input", Json(Json::Array{l.evidence->input.median, l.evidence->input.outliers, Json(std::move(top))}));
  return j;
}

JournalEntry::Layer layer_from_json(const Json& j) {
  JournalEntry::Layer l{j.at("name").as_string("name"), {}, {}, {}};
  const auto& weights = array_of(j.at("weights"), 2, "weights");
  l.error = {weights[0].as_double(), weights[1].as_double()};
  if (const Json* o = j.get("outputs")) {
    const auto& a = array_of(*o, 3, "outputs");
    l.loss = OutputLoss{a[0].as_double(), a[1].as_double(), a[2].as_double()};
  }
  if (!j.has("text")) return l;
  LayerEvidence e{kind_from_json(j.at("text")), kind_from_json(j.at("vision")), {}};
  const auto& input = array_of(j.at("input"), 3, "input");
  e.input = {input[0].as_double(), input[1].as_int(), {}};
  for (const Json& t : input[2].as_array("input")) {
    const auto& channel = array_of(t, 2, "channel");
    e.input.top.emplace_back(channel[0].as_int(), channel[1].as_double());
  }
  l.evidence = std::move(e);
  return l;
}

Json entry_to_json(const JournalEntry& e) {
  Json layers = Json::array();
  for (const JournalEntry::Layer& l : e.layers) layers.push(layer_to_json(l));
  Json j = Json::object();
  j.set("unit", e.unit);
  j.set("layers", std::move(layers));
  if (e.rewrote) j.set("rewrote", true);
  Json checksums = Json::object();
  for (const auto& [name, value] : e.checksums) checksums.members().emplace_back(name, Json(static_cast<int64_t>(value)));
  j.set("checksums", std::move(checksums));
  Json scales = Json::array();
  for (const ScaleRecord& r : e.scales) {
    Json one = Json::object();
    one.set("group", r.group);
    one.set("readers", Json(r.readers));
    one.set("ratio", r.ratio);
    Json losses = Json::array();
    for (double l : r.losses) losses.push(l);
    one.set("losses", std::move(losses));
    if (r.rho) one.set("rho", *r.rho);
    if (r.mean_abs_K.defined()) one.set("mean", true);
    scales.push(std::move(one));
  }
  if (!e.scales.empty()) j.set("scales", std::move(scales));
  Json clips = Json::array();
  for (const ClipRecord& c : e.clips) clips.push(Json(Json::Array{c.layer, c.steps}));
  if (!e.clips.empty()) j.set("clips", std::move(clips));
  return j;
}

JournalEntry entry_from_json(const Json& j) {
  JournalEntry e{.unit = j.at("unit").as_string("unit"), .layers = {}, .scales = {}, .clips = {}, .checksums = {}, .rewrote = j.get_bool("rewrote", false)};
  for (const Json& l : j.at("layers").as_array("layers")) e.layers.push_back(layer_from_json(l));
  for (const auto& [name, value] : j.at("checksums").as_object("checksums")) e.checksums.emplace_back(name, static_cast<uint64_t>(value.as_int(name)));
  const Json* scales = j.get("scales");
  for (const Json& s : scales ? scales->as_array("scales") : Json::Array()) {
    ScaleRecord r{.group = s.at("group").as_string("group"), .readers = {}, .scale_C = {}, .ratio = s.at("ratio").as_double("ratio")};
    for (const Json& reader : s.at("readers").as_array("readers")) r.readers.push_back(reader.as_string("readers"));
    for (const Json& l : s.at("losses").as_array("losses")) r.losses.push_back(l.as_double("losses"));
    if (const Json* rho = s.get("rho")) r.rho = rho->as_double("rho");
    if (s.get_bool("mean", false)) r.mean_abs_K = at::empty({0});  // read_scales() fills it
    e.scales.push_back(std::move(r));
  }
  const Json* clips = j.get("clips");
  for (const Json& c : clips ? clips->as_array("clips") : Json::Array()) {
    const auto& one = array_of(c, 2, "clip");
    e.clips.push_back({one[0].as_string("clips"), {}, one[1].as_int("clips")});
  }
  return e;
}

// In the file of a unit's scales; a group may be scaled more than once.
std::string scale_name(const ScaleRecord& r, size_t i) { return std::to_string(i) + "." + r.group; }

void remove_tree(const std::string& folder) {
  std::error_code ec;
  fs::remove_all(folder, ec);
  if (ec) throw io_error(folder, ec.value());
}

}  // namespace

std::string check_target(const std::string& target, const std::string& source, bool overwrite) {
  if (target.empty()) throw Error(ErrorKind::usage, "no output folder given");
  std::error_code ec;
  fs::path absolute = fs::weakly_canonical(fs::absolute(target), ec);
  if (ec) throw io_error(target, ec.value());
  std::string path = absolute.string();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  absolute = path;
  if (!fs::is_directory(absolute.parent_path(), ec))
    throw Error(ErrorKind::not_found, absolute.parent_path().string() + ": no such directory (the output folder's parent must exist)");
  const fs::path from = fs::weakly_canonical(fs::absolute(source), ec);
  for (fs::path p = from; !p.empty(); p = p.parent_path()) {
    if (p == absolute) throw Error(ErrorKind::usage, target + ": the output folder is the source or holds it; choose another");
    if (p == p.parent_path()) break;
  }
  if (!fs::exists(absolute, ec)) return path;
  if (!fs::is_directory(absolute, ec)) throw Error(ErrorKind::usage, target + ": exists and is no folder");
  if (fs::is_empty(absolute, ec)) return path;
  if (!overwrite) throw Error(ErrorKind::usage, target + ": exists and is not empty; choose another folder, or --overwrite to replace it");
  if (!is_file(path + "/config.json"))
    throw Error(ErrorKind::usage, target + ": is no checkpoint (no config.json), so --overwrite does not replace it");
  return path;
}

Staging::Staging(std::string target, const std::string& plan_hash, bool restart) : target_(std::move(target)) {
  folder_ = target_ + kMark + plan_hash.substr(0, kIdLength);
  journal_ = folder_ + "/" + kJournal;
  const fs::path parent = fs::path(target_).parent_path();
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(parent)) {
    if (is_partial_of(entry.path().filename().string(), fs::path(target_).filename().string())) others.push_back(entry.path().string());
  }
  for (const std::string& other : others) {
    if (restart) {
      remove_tree(other);
    } else if (other != folder_) {
      throw Error(ErrorKind::mismatch, other +
                                           ": unfinished work for this output with other options, another version or a changed source; "
                                           "repeat that run's command to finish it, or --restart to remove it");
    }
  }
  std::error_code ec;
  fs::create_directory(folder_, ec);
  if (ec) throw io_error(folder_, ec.value());
  open_journal(plan_hash);
}

Staging::~Staging() {
  if (fd_ >= 0) ::close(fd_);
}

void Staging::open_journal(const std::string& plan_hash) {
  fd_ = ::open(journal_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) throw io_error(journal_, errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) throw Error(ErrorKind::io, folder_ + ": another process is working there");
  const std::string text = read_file(journal_);
  size_t at = 0, line = 0;
  for (size_t end; (end = text.find('\n', at)) != text.npos; at = end + 1, ++line) {
    const std::string where = journal_ + ":" + std::to_string(line + 1);
    Json j = Json::parse(std::string_view(text).substr(at, end - at), where);
    if (line > 0) {
      done_.push_back(with_context(where, [&] { return entry_from_json(j); }));
      read_scales(done_.back(), done_.size() - 1);
    } else if (j.get_string("plan", "") != plan_hash) {
      throw Error(ErrorKind::mismatch, journal_ + ": belongs to another plan; --restart removes it");
    }
  }
  if (at < text.size() && ::ftruncate(fd_, static_cast<off_t>(at)) != 0) throw io_error(journal_, errno);
  if (line > 0) return;
  Json head = Json::object();
  head.set("journal", 1);
  head.set("plan", plan_hash);
  const std::string first = head.dump() + "\n";
  if (::write(fd_, first.data(), first.size()) != static_cast<ssize_t>(first.size()) || ::fsync(fd_) != 0) throw io_error(journal_, errno);
  sync_directory(folder_);
}

std::string Staging::scales_path(size_t unit) const { return folder_ + "/scales-" + std::to_string(unit) + ".part"; }

void Staging::read_scales(JournalEntry& entry, size_t unit) const {
  if (entry.scales.empty() && entry.clips.empty()) return;
  const std::string path = scales_path(unit);
  if (!is_file(path)) throw Error(ErrorKind::mismatch, path + ": the scales of the unfinished work are gone; --restart begins anew");
  const SafetensorsFile file(path);
  for (size_t i = 0; i < entry.scales.size(); ++i) {
    ScaleRecord& r = entry.scales[i];
    r.scale_C = file.tensor(scale_name(r, i)).clone();
    if (r.mean_abs_K.defined()) r.mean_abs_K = file.tensor(scale_name(r, i) + kMean).clone();
  }
  for (ClipRecord& c : entry.clips) c.shrink_NG = file.tensor(c.layer);
}

void Staging::add(const JournalEntry& entry) {
  NamedTensors found;
  for (size_t i = 0; i < entry.scales.size(); ++i) {
    const ScaleRecord& r = entry.scales[i];
    found.emplace_back(scale_name(r, i), r.scale_C);
    if (r.mean_abs_K.defined()) found.emplace_back(scale_name(r, i) + kMean, r.mean_abs_K);
  }
  for (const ClipRecord& c : entry.clips) found.emplace_back(c.layer, c.shrink_NG);
  if (!found.empty()) write_safetensors(scales_path(done_.size()), found);
  const std::string line = entry_to_json(entry).dump() + "\n";
  ssize_t n = ::write(fd_, line.data(), line.size());
  if (n != static_cast<ssize_t>(line.size())) throw io_error(journal_, n < 0 ? errno : ENOSPC);
  if (::fdatasync(fd_) != 0) throw io_error(journal_, errno);
  done_.push_back(entry);
  read_scales(done_.back(), done_.size() - 1);
}

void Staging::publish() {
  check(fd_ >= 0, "published twice");
  for (size_t i = 0; i < done_.size(); ++i) {
    if (!done_[i].scales.empty() || !done_[i].clips.empty()) fs::remove(scales_path(i));
  }
  // The lock goes with the file; nobody else can have opened it without.
  if (::unlink(journal_.c_str()) != 0) throw io_error(journal_, errno);
  ::close(std::exchange(fd_, -1));
  sync_directory(folder_);
  std::error_code ec;
  std::string old;
  if (fs::exists(target_, ec) && !fs::is_empty(target_, ec)) {
    old = target_ + ".old-" + folder_.substr(folder_.size() - kIdLength);
    fs::rename(target_, old, ec);
    if (ec) throw io_error(target_, ec.value());
  }
  fs::rename(folder_, target_, ec);
  if (ec) throw io_error(target_, ec.value());
  sync_directory(fs::path(target_).parent_path().string());
  if (!old.empty()) remove_tree(old);
}

void Staging::discard() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  remove_tree(folder_);
}

}  // namespace statera
