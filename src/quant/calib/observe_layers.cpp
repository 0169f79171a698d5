// A block calls a layer at most once per sample, so a sample is done with when every layer was called; where one is not, the block runs to its end.
#include "quant/calib/observe_layers.h"

#include <memory>
#include <utility>

namespace statera {

void observe_layers(const StackWalk& walk, int64_t block, const std::map<const LinearSite*, Accumulator*>& into) {
  struct Collector : Tap {
    const std::map<const LinearSite*, Accumulator*>& into;
    std::shared_ptr<Side> sample;  // held, so that the next one has another address
    size_t seen = 0;
    explicit Collector(const std::map<const LinearSite*, Accumulator*>& to) : into(to) {}
    void input(const LinearSite& site, const at::Tensor& x_TK, const Pass& pass) override {
      auto it = into.find(&site);
      if (it == into.end()) return;
      it->second->add(x_TK, pass);
      if (std::exchange(sample, pass.side) != pass.side) seen = 0;
      if (++seen == into.size()) throw StackWalk::Enough();
    }
  } collector(into);
  walk.observe(block, collector);
}

}  // namespace statera
