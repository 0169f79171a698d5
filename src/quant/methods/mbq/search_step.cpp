// Gathering, replaying, folding; and the sensitivities that weigh vision tokens against answers.
#include "quant/methods/mbq/search_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "nn/model.h"
#include "quant/calib/accumulators.h"
#include "quant/calib/fold.h"
#include "quant/methods/awq/algo.h"
#include "quant/methods/mbq/algo.h"

namespace statera {
namespace {

// A piece of a group's input: rows of any samples, or one sample with its pass.
struct Part {
  at::Tensor x_TK, kinds_T;
  Pass pass;
};

// What is gathered at the first reader of a group.
class GroupInput : public Accumulator {
 public:
  GroupInput(const ScaleSearch& s, bool sequences, bool gram_allowed) : settings_(s), sequences_(sequences), gram_allowed_(gram_allowed) {}

  void add(const at::Tensor& x, const Pass& pass) override {
    const at::Tensor sum = at::sum(at::abs(x), {0}, false, at::kDouble);
    sum_K_ = sum_K_.defined() ? sum_K_ + sum : sum;
    rows_ += x.size(0);
    if (sequences_) return add_sequence(x, pass);
    if (!gram && !keeper_) begin(x.size(1));
    if (gram) gram->add(x, {});
    if (keeper_) keeper_->add(x, pass);
  }

  int64_t rows() const { return rows_; }
  at::Tensor mean_abs() const { return (sum_K_ / static_cast<double>(rows_)).to(at::kFloat); }
  std::vector<Part> take_parts() {
    if (keeper_ && keeper_->rows().defined()) {
      Pass pass;
      pass.bounds = one_sequence(keeper_->rows().size(0));
      parts_.push_back({keeper_->rows(), keeper_->kinds(), std::move(pass)});
    }
    return std::move(parts_);
  }
  std::unique_ptr<Gram> gram;

 private:
  void begin(int64_t width) {
    const int64_t kept = settings_.search_tokens > 0 ? std::min(settings_.search_tokens, settings_.data_tokens) : settings_.data_tokens;
    if (gram_allowed_ && (settings_.search_tokens == 0 || width <= kept)) {
      gram = std::make_unique<Gram>(width);
    } else {
      keeper_ = std::make_unique<InputKeeper>(settings_.search_tokens, settings_.data_tokens, settings_.seed);
    }
  }

  // Whole samples, those with pictures and those without each by its share; of each at least the first.
  void add_sequence(const at::Tensor& x, const Pass& pass) {
    const bool all = settings_.search_tokens <= 0 || settings_.data_tokens <= settings_.search_tokens;
    const double share = all ? 1 : static_cast<double>(settings_.search_tokens) / static_cast<double>(settings_.data_tokens);
    const auto T = static_cast<double>(x.size(0));
    auto& [seen, kept] = tokens_[(pass.kinds == static_cast<int64_t>(kVision)).any().item<bool>()];
    seen += T;
    if (!all && kept > 0 && kept + T / 2 > share * seen) return;
    kept += T;
    parts_.push_back({x.to(at::kFloat).clone(), pass.kinds, pass});
    parts_.back().pass.tap = nullptr;
  }

  const ScaleSearch& settings_;
  bool sequences_, gram_allowed_;
  at::Tensor sum_K_;
  int64_t rows_ = 0;
  std::unique_ptr<InputKeeper> keeper_;
  std::array<std::pair<double, double>, 2> tokens_{};  // seen and kept, of samples without and with pictures
  std::vector<Part> parts_;
};

// Every linear of some sites as something else for a while; put back bit-equal.
class WeightSwap {
 public:
  ~WeightSwap() {
    for (auto& [site, was] : saved_) std::tie(site->weight, site->act) = was;
  }
  void set(const std::shared_ptr<LinearSite>& site, Weight weight, const std::optional<ActQuant>& act) {
    saved_.try_emplace(site, site->weight, site->act);
    site->weight = std::move(weight);
    site->act = act;
  }

 private:
  std::map<std::shared_ptr<LinearSite>, std::pair<Weight, std::optional<ActQuant>>> saved_;
};

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
    for (const ScaleGroup& g : job.topology().groups) {
      if (const LinearSite* first = first_reader(g, job)) inputs_[input_of(g, *first)] = {g.mixes_rows, g.readers.size() == 1 && !g.mixes_rows && judged_alone(g)};
    }
  }
  std::unique_ptr<Accumulator> watch(const LinearSite& site) override {
    auto it = inputs_.find(&site);
    if (it == inputs_.end()) return nullptr;
    const bool gram = it->second.second && s_.loss.squared && !balanced(site) && !s_.act;
    return std::make_unique<GroupInput>(s_, it->second.first, gram);
  }
  std::unique_ptr<Accumulator> watch_whole(const LinearSite& site) override { return watch(site); }

  void apply(BlockJob& job) override {
    c10::InferenceMode no_gradients;
    std::vector<std::pair<const ScaleGroup*, ScaleRecord>> found;
    const Topology topology = job.topology();
    for (const ScaleGroup& g : topology.groups) {
      const LinearSite* first = first_reader(g, job);
      if (!first) continue;
      auto* input = dynamic_cast<GroupInput*>(job.statistics(*input_of(g, *first)));
      // An expert that no token chose keeps its scales; the report names it (journal_report.h).
      if (input && input->rows() == 0 && first->role == Role::expert) continue;
      if (!input || input->rows() == 0) job.refuse(*first, "no calibration sample reaches it");
      found.emplace_back(&g, search(g, *first, *input, job));
    }
    for (auto& [group, record] : found) fold_group(job, *group, std::move(record));
  }

  std::vector<std::string> notes() const override {
    if (!s_.loss.reweight || !rho_.empty()) return {};
    return {"no calibration sample has both pictures and answers: vision tokens are weighed as answers are (rho = 1)"};
  }

 private:
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

  ScaleRecord search(const ScaleGroup& g, const LinearSite& first, GroupInput& input, const BlockJob& job) const {
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
      choice = replayed(g, input.take_parts(), sites, weights, specs, mean_K, grid, record.rho.value_or(1), job);
    }
    record.scale_C = choice.scale;
    record.ratio = choice.ratio;
    record.losses = std::move(choice.losses);
    return record;
  }

  ScaleChoice replayed(const ScaleGroup& g, std::vector<Part> parts, const std::vector<std::shared_ptr<LinearSite>>& sites,
                       const std::vector<at::Tensor>& weights, const std::vector<QSpec>& specs, const at::Tensor& mean_K, const ScaleGridOptions& grid, double rho,
                       const BlockJob& job) const {
    const MbqLoss loss{s_.loss.squared ? ErrorNorm::mse : ErrorNorm::mae, balanced(*sites.front()), s_.loss.own_mean};
    TokenCounts counts;
    for (const Part& p : parts) {
      counts.all += p.kinds_T.size(0);
      counts.vision += (p.kinds_T == static_cast<int64_t>(kVision)).sum().item<int64_t>();
      counts.answer += (p.kinds_T == static_cast<int64_t>(kAnswer)).sum().item<int64_t>();
    }
    std::vector<at::Tensor> targets, row_weights;
    for (const Part& p : parts) {
      targets.push_back(g.replay(p.x_TK, p.pass));
      row_weights.push_back(mbq_row_weight(p.kinds_T == static_cast<int64_t>(kVision), p.kinds_T == static_cast<int64_t>(kAnswer), counts, loss, rho));
    }
    auto replay = [&](const MbqTrial& trial) {
      WeightSwap swap;
      for (size_t i = 0; i < sites.size(); ++i) {
        const bool floating = !rounded(Linear(sites[i]), job);
        swap.set(sites[i], make_dense(floating ? weights[i].to(at::kFloat) * trial.divisor : trial.weights[i]), floating ? std::nullopt : trial.act);
      }
      double sum = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        const at::Tensor x = trial.divisor.defined() ? parts[i].x_TK / trial.divisor : parts[i].x_TK;
        sum += weighted_error(targets[i], g.replay(x, parts[i].pass), row_weights[i], loss.norm);
      }
      return sum;
    };
    return mbq_search(weights, mean_K, specs, s_.act, replay, grid);
  }

  ScaleSearch s_;
  struct Mean {
    double mean = 0, rows = 0;
  };
  std::map<std::pair<Role, int64_t>, std::map<size_t, std::array<Mean, 2>>> means_;  // by sample: of vision and of answer tokens
  std::map<std::pair<std::string, int64_t>, double> rho_;
  std::map<const LinearSite*, std::pair<bool, bool>> inputs_;  // layers whose input is a group's: mixes rows; is judged alone
};

}  // namespace

std::unique_ptr<Step> make_scale_search(const ScaleSearch& settings) { return std::make_unique<SearchStep>(settings); }

}  // namespace statera
