// Staging: the folder DIR.partial-<id> beside DIR in which an output grows, and its journal. DIR appears complete or not at all.
// The id is the start of a hash over the plan (source, options, version): a run with the same plan goes on where the last one stopped.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quant/evidence.h"
#include "quant/recipe.h"

namespace statera {

// One finished unit: its name and the errors of its layers, which a resumed run reports too.
struct JournalEntry {
  struct Layer {
    std::string name;  // on-disk module
    RoundingError error;
    std::optional<OutputLoss> loss;  // of methods that look at activations
    std::optional<LayerEvidence> evidence;
  };
  std::string unit;
  std::vector<Layer> layers;
  std::vector<ScaleRecord> scales;  // their tensors lie in a file of their own
  std::vector<ClipRecord> clips;    // likewise; in Staging::done() they are views of that file
  std::vector<std::pair<std::string, uint64_t>> checksums;  // of every tensor that was written, by its name in the files
  bool rewrote = false;  // kept tensors got other values, and layers were rounded from other weights than the source's
};

// Whether `target` may become the output: its parent exists, it is neither the source nor above it, and it is absent, empty, or (with
// overwrite) a checkpoint folder. Error(usage|not_found) otherwise. Returns the path without trailing slashes or links.
std::string check_target(const std::string& target, const std::string& source, bool overwrite);

class Staging {
 public:
  // Makes or re-opens the folder for a checked target. Unfinished work of another plan beside it is Error(mismatch), or is removed with
  // `restart` (which drops unfinished work of this plan too). Another process at work there is Error(io).
  Staging(std::string target, const std::string& plan_hash, bool restart);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const std::string& folder() const { return folder_; }
  // Finished units, those of earlier runs first.
  const std::vector<JournalEntry>& done() const { return done_; }
  // Writes scales and ranges, then appends a line, and makes both survive a crash. The tensors it speaks of must be on disk already.
  void add(const JournalEntry& entry);
  // Removes the journal and the units' scales, then gives the folder its final name (replacing an existing target).
  void publish();
  // Removes folder and journal.
  void discard();

 private:
  void open_journal(const std::string& plan_hash);
  std::string scales_path(size_t unit) const;
  void read_scales(JournalEntry& entry, size_t unit) const;
  std::string target_, folder_, journal_;
  std::vector<JournalEntry> done_;
  int fd_ = -1;
};

}  // namespace statera
