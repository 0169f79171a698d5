// One mapping a step, then what applies to all.
#include "quant/recipes/resolved.h"

namespace statera {
namespace {

Json step_options(const std::string& method, const QuantizeSettings& s) {
  Json j = Json::object();
  if (method == "gptq") {
    j.set("act_order", s.gptq.act_order);
    j.set("damp", s.gptq.damp);
    j.set("clip", s.gptq.clip);
  } else if (method == "awq") {
    j.set("clip", s.awq.clip);
    j.set("tie_heads", s.awq.tie_heads);
  } else if (method == "smoothquant") {
    j.set("alpha", s.smooth_alpha);
  } else if (method == "mbq") {
    j.set("reweight", s.mbq.reweight);
    j.set("loss", s.mbq.squared ? "mse" : "mae");
    j.set("norm", s.mbq.own_mean ? "own" : "common");
    j.set("floor", s.mbq.median_floor);
    j.set("tie_heads", s.mbq.tie_heads);
    j.set("distort", s.mbq.distort);
  }
  return j;
}

}  // namespace

Json resolved_recipe(const QuantizeSettings& s) {
  Json steps = Json::array(), weights = Json::object(), activations = Json::object(), select = Json::object(), overrides = Json::array();
  for (const std::string& method : recipe_methods(s.method)) {
    Json step = Json::object();
    step.set(method, step_options(method, s));
    steps.push(std::move(step));
  }
  weights.set("bits", s.plan.weights.bits);
  weights.set("group", s.plan.weights.group);
  weights.set("symmetric", s.plan.weights.symmetric);
  activations.set("bits", s.plan.act ? s.plan.act->bits : 16);
  if (s.plan.act) activations.set("static", s.plan.act->is_static);
  select.set("vision", s.plan.select.vision);
  select.set("projector", s.plan.select.projector);
  select.set("head", s.plan.select.head);
  select.set("ignore", Json(s.plan.select.ignore));
  for (const Override& o : s.plan.select.overrides) overrides.push(o.to_json());
  Json j = Json::object();
  j.set("steps", std::move(steps));
  j.set("weights", std::move(weights));
  j.set("activations", std::move(activations));
  j.set("select", std::move(select));
  j.set("overrides", std::move(overrides));
  if (s.plan.weights.own_range) j.set("parity", "own-ranges");
  if (s.target_bits) j.set("target_bits", *s.target_bits);
  return j;
}

}  // namespace statera
