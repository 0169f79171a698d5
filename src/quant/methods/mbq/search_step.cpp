// Gathering, replaying, folding; and the sensitivities that weigh vision tokens against answers.
#include "quant/methods/mbq/search_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ThreadLocalState.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "nn/model.h"
#include "quant/calib/fold.h"
#include "quant/methods/awq/algo.h"
#include "quant/methods/mbq/algo.h"
#include "quant/methods/mbq/group_input.h"
#include "quant/methods/mbq/settled_block.h"

namespace statera {
namespace {

// Pieces of the input on one core each.
template <class F>
void side_by_side(size_t count, F&& body) {
  const at::ThreadLocalState modes;
  parallel_for(static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
    const at::ThreadLocalStateGuard same(modes);
    for (int64_t i = begin; i < end; ++i) body(static_cast<size_t>(i));
  });
}

bool tied(const ScaleGroup& g) {
  for (size_t c = 0; c < g.reader_of.size(); ++c) {
    if (g.reader_of[c] != static_cast<int64_t>(c)) return true;
  }
  return false;
}

class SearchStep : public Step {
 public:
  explicit SearchStep(const ScaleSearch& settings) : s_(settings) {}
  bool needs_data() const override { return true; }
  bool only_scales() const override { return true; }

  bool needs_original() const override { return s_.loss.distort; }

  bool needs_gradients() const override { return s_.loss.reweight; }
  std::vector<double> measure_gradient(const LinearSite&, const at::Tensor& G, const Pass& pass) const override {
    const Sensitivity s = modality_sensitivity(G, pass.kinds == static_cast<int64_t>(kVision), pass.kinds == static_cast<int64_t>(kAnswer));
    const auto rows = [&](TokenKind kind) { return (pass.kinds == static_cast<int64_t>(kind)).sum().item<double>(); };
    return {s.vision.value_or(0), rows(kVision), s.answer.value_or(0), rows(kAnswer)};
  }
  // The experts of a block are one place: means over all tokens that reach any of them.
  void gradient(const LinearSite& site, size_t sample, const std::vector<double>& m) override {
    auto& means = means_[{site.role, site.block}][sample];
    for (size_t kind = 0; kind < 2; ++kind) {
      auto& [mean, rows] = means[kind];
      const double more = m.at(2 * kind + 1);
      if (more == 0) continue;
      rows += more;
      mean += (m.at(2 * kind) - mean) * (more / rows);
    }
  }
  Json learned() const override {
    Json out = Json::array();
    for (const auto& [where, means] : means_) {
      std::vector<Sensitivity> samples;
      for (const auto& [sample, kinds] : means) {
        auto of = [&](const Mean& m) { return m.rows > 0 ? std::optional(m.mean) : std::nullopt; };
        samples.push_back({of(kinds[0]), of(kinds[1])});
      }
      Json one = Json::object();
      one.set("role", std::string(to_string(where.first)));
      one.set("block", where.second);
      one.set("samples", static_cast<int64_t>(samples.size()));
      if (const auto rho = modality_ratio(samples)) one.set("rho", *rho);
      out.push(std::move(one));
    }
    return out;
  }
  void take_learned(const Json& learned) override {
    std::map<std::string, std::pair<std::vector<int64_t>, std::vector<std::optional<double>>>> by_role;
    for (const Json& one : learned.as_array("sensitivities")) {
      auto& [blocks, rhos] = by_role[one.at("role").as_string("role")];
      blocks.push_back(one.at("block").as_int("block"));
      const Json* rho = one.get("rho");
      rhos.push_back(rho ? std::optional(rho->as_double("rho")) : std::nullopt);
    }
    for (const auto& [role, rows] : by_role) {
      const std::vector<double> floored = floor_at_median(rows.second, s_.loss.median_floor);
      for (size_t i = 0; i < floored.size(); ++i) rho_[{role, rows.first[i]}] = floored[i];
    }
  }

  void begin(const BlockJob& job) override {
    inputs_.clear();
    s_.data_tokens = job.rows();
    const Topology topology = job.topology();
    first_phase_ = topology.phases.size();
    for (const ScaleGroup& g : topology.groups) {
      const LinearSite* first = first_reader(g, job);
      if (!first) continue;
      const bool one_layer = g.readers.size() == 1 && !g.mixes_rows && judged_alone(g);
      const bool gram = one_layer && s_.loss.squared && !balanced(*first) && !s_.act && !s_.loss.distort;
      inputs_[input_of(g, *first)] = {g.mixes_rows, gram, phase_of(topology, *first)};
      first_phase_ = std::min(first_phase_, phase_of(topology, *first));
    }
  }
  // Under distort what later phases see is known only once the earlier groups are searched.
  std::unique_ptr<Accumulator> watch(const LinearSite& site) override {
    auto it = inputs_.find(&site);
    if (it == inputs_.end() || (s_.loss.distort && it->second.phase != first_phase_)) return nullptr;
    return std::make_unique<GroupInput>(s_, it->second.sequences, it->second.gram);
  }
  std::unique_ptr<Accumulator> watch_whole(const LinearSite& site) override { return watch(site); }

  void apply(BlockJob& job) override {
    c10::InferenceMode no_gradients;
    std::vector<FoundScale> found;
    const Topology topology = job.topology();
    if (s_.loss.distort) {
      search_distorted(topology, job, found);
    } else {
      for (const ScaleGroup& g : topology.groups) {
        const LinearSite* first = first_reader(g, job);
        if (!first) continue;
        if (GroupInput* input = seen(*first, job.statistics(*input_of(g, *first)), job)) found.push_back({&g, search(g, *first, *input, nullptr, job)});
      }
    }
    for (auto& [group, record] : found) fold_group(job, *group, std::move(record));
  }

  std::vector<std::string> notes() const override {
    if (!s_.loss.reweight || !rho_.empty()) return {};
    return {"no calibration sample has both pictures and answers: vision tokens are weighed as answers are (rho = 1)"};
  }

 private:
  // What is gathered of a group's input.
  struct Gathering {
    bool sequences = false, gram = false;
    size_t phase = 0;  // of the group's readers
  };
  using Gathered = std::map<const LinearSite*, std::unique_ptr<GroupInput>>;

  // nullptr: an expert that no token chose. It keeps its scales; the report names it (journal_report.h).
  static GroupInput* seen(const LinearSite& first, Accumulator* gathered, const BlockJob& job) {
    auto* input = dynamic_cast<GroupInput*>(gathered);
    if (input && input->rows() == 0 && first.role == Role::expert) return nullptr;
    if (!input || input->rows() == 0) job.refuse(first, "no calibration sample reaches it");
    return input;
  }
  Gathered gather(BlockJob& job, BlockJob::Inputs inputs, const std::vector<const LinearSite*>& sites) const {
    Gathered out;
    std::map<const LinearSite*, Accumulator*> into;
    for (const LinearSite* site : sites) {
      const Gathering& g = inputs_.at(site);
      into[site] = (out[site] = std::make_unique<GroupInput>(s_, g.sequences, g.gram)).get();
    }
    job.observe(inputs, into);
    return out;
  }

  // mbq.md 2.8: candidates run on what the rounded blocks before give; behind the first phase of groups, on what this block makes of it with the
  // groups found so far folded and the layers before rounded. Groups of one phase do not reach each other.
  void search_distorted(const Topology& topology, BlockJob& job, std::vector<FoundScale>& found) const {
    struct Searched {
      const ScaleGroup* group;
      const LinearSite *first, *at;  // its first reader; where its input is gathered
    };
    std::map<size_t, std::vector<Searched>> phases;
    std::vector<const LinearSite*> all;
    for (const ScaleGroup& g : topology.groups) {
      const LinearSite* first = first_reader(g, job);
      if (!first) continue;
      const LinearSite* at = input_of(g, *first);
      phases[inputs_.at(at).phase].push_back({&g, first, at});
      all.push_back(at);
    }
    if (all.empty()) return;
    Gathered originals = gather(job, BlockJob::Inputs::original, all);
    for (const auto& [phase, groups] : phases) {
      Gathered settled;
      if (phase != first_phase_) {
        std::vector<const LinearSite*> sites;
        for (const Searched& g : groups) sites.push_back(g.at);
        const SettledBlock block(job, topology, found, phase, s_.act);
        settled = gather(job, BlockJob::Inputs::rounded, sites);
      }
      for (const auto& [group, first, at] : groups) {
        const std::unique_ptr<GroupInput> original = std::move(originals.at(at));
        Accumulator* distorted = phase == first_phase_ ? job.statistics(*at) : settled.at(at).get();
        if (GroupInput* input = seen(*first, distorted, job)) found.push_back({group, search(*group, *first, *input, original.get(), job)});
      }
    }
  }

  // The first reader that will be rounded; nullptr: the group is not searched.
  const LinearSite* first_reader(const ScaleGroup& g, const BlockJob& job) const {
    if (tied(g) && !s_.loss.tie_heads) return nullptr;
    for (const Linear& l : g.readers) {
      if (rounded(l, job)) return &l.site();
    }
    return nullptr;
  }
  // Where the group's input is gathered.
  static const LinearSite* input_of(const ScaleGroup& g, const LinearSite& first) { return g.whole ? &g.whole.site() : &first; }
  static bool rounded(const Linear& l, const BlockJob& job) {
    const auto layers = job.layers();
    return std::any_of(layers.begin(), layers.end(), [&](const auto& s) { return s.get() == &l.site(); });
  }
  // Whether the group's replay is its one reader: a linear layer feeds it.
  static bool judged_alone(const ScaleGroup& g) { return g.norm.empty(); }

  // Within the vision tower all rows are of one kind.
  bool balanced(const LinearSite& site) const { return s_.loss.reweight && site.role != Role::vision; }
  double rho_of(const LinearSite& site) const {
    auto it = rho_.find({std::string(to_string(site.role)), site.block});
    return it == rho_.end() ? 1 : it->second;
  }

  // original: the input that targets come from, unless rows are missing on one side (experts, where tokens went elsewhere): then, and with nullptr,
  // they come from `input`.
  ScaleRecord search(const ScaleGroup& g, const LinearSite& first, GroupInput& input, GroupInput* original, const BlockJob& job) const {
    std::vector<std::shared_ptr<LinearSite>> sites;
    std::vector<at::Tensor> weights;
    std::vector<QSpec> specs;
    for (const Linear& l : g.readers) {
      if (!rounded(l, job) && !s_.act) continue;  // with activations a reader that stays floating sees divided inputs all the same
      sites.push_back(l.handle());
      weights.push_back(l.site().weight->dense());
      specs.push_back(job.spec(rounded(l, job) ? l.site() : first));
    }
    ScaleGridOptions grid;
    grid.reader_of = g.reader_of;
    grid.channels = g.reader_of.empty() ? 0 : g.channels;
    const at::Tensor mean_K = input.mean_abs();
    ScaleRecord record;
    if (balanced(first)) record.rho = rho_of(first);
    ScaleChoice choice;
    if (input.gram) {
      choice = awq_search(weights, {.gram_KK = input.gram->value()}, mean_K, specs, grid);
      const double outputs = static_cast<double>(input.rows()) * static_cast<double>(weights.front().size(0));
      for (double& l : choice.losses) l /= outputs;
    } else {
      const bool paired = original && original->rows() == job.rows() && input.rows() == job.rows();
      choice = replayed(g, input.take_parts(), paired ? original->take_parts() : std::vector<InputPart>{}, sites, weights, specs, mean_K, grid, record.rho.value_or(1), job);
    }
    record.scale_C = choice.scale;
    record.mean_abs_K = mean_K;
    record.ratio = choice.ratio;
    record.losses = std::move(choice.losses);
    return record;
  }

  // originals: the same rows as parts, that targets come from; empty: parts.
  ScaleChoice replayed(const ScaleGroup& g, std::vector<InputPart> parts, std::vector<InputPart> originals, const std::vector<std::shared_ptr<LinearSite>>& sites,
                       const std::vector<at::Tensor>& weights, const std::vector<QSpec>& specs, const at::Tensor& mean_K, const ScaleGridOptions& grid, double rho,
                       const BlockJob& job) const {
    const MbqLoss loss{s_.loss.squared ? ErrorNorm::mse : ErrorNorm::mae, balanced(*sites.front()), s_.loss.own_mean};
    TokenCounts counts;
    for (const InputPart& p : parts) {
      counts.all += p.kinds_T.size(0);
      counts.vision += (p.kinds_T == static_cast<int64_t>(kVision)).sum().item<int64_t>();
      counts.answer += (p.kinds_T == static_cast<int64_t>(kAnswer)).sum().item<int64_t>();
    }
    std::vector<at::Tensor> targets(parts.size()), row_weights;
    check(originals.empty() || originals.size() == parts.size(), "rows in pairs");
    const std::vector<InputPart>& shown = originals.empty() ? parts : originals;
    side_by_side(parts.size(), [&](size_t i) { targets[i] = g.replay(shown[i].x_TK, shown[i].pass); });
    originals.clear();
    for (const InputPart& p : parts) {
      row_weights.push_back(mbq_row_weight(p.kinds_T == static_cast<int64_t>(kVision), p.kinds_T == static_cast<int64_t>(kAnswer), counts, loss, rho));
    }
    auto replay = [&](const MbqTrial& trial) {
      WeightSwap swap;
      for (size_t i = 0; i < sites.size(); ++i) {
        const bool floating = !rounded(Linear(sites[i]), job);
        swap.set(sites[i], make_dense(floating ? weights[i].to(at::kFloat) * trial.divisor : trial.weights[i]), floating ? std::nullopt : trial.act);
      }
      std::vector<double> errors(parts.size());
      side_by_side(parts.size(), [&](size_t i) {
        const at::Tensor x = trial.divisor.defined() ? parts[i].x_TK / trial.divisor : parts[i].x_TK;
        errors[i] = weighted_error(targets[i], g.replay(x, parts[i].pass), row_weights[i], loss.norm);
      });
      return std::accumulate(errors.begin(), errors.end(), 0.0);
    };
    return mbq_search(weights, mean_K, specs, s_.act, replay, grid);
  }

  ScaleSearch s_;
  struct Mean {
    double mean = 0, rows = 0;
  };
  std::map<std::pair<Role, int64_t>, std::map<size_t, std::array<Mean, 2>>> means_;  // by sample: of vision and of answer tokens
  std::map<std::pair<std::string, int64_t>, double> rho_;
  std::map<const LinearSite*, Gathering> inputs_;  // by layer whose input is a group's
  size_t first_phase_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_scale_search(const ScaleSearch& settings) { return std::make_unique<SearchStep>(settings); }

}  // namespace statera
