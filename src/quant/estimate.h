// How long a run will take: its work counted from shapes, divided by rates measured here and now.
#pragma once

#include "quant/output_plan.h"
#include "quant/plan_details.h"

namespace statera {

struct CalibData;

// methods: names in order, the last one rounds (recipe_methods). data: nullptr for data-free recipes. Takes about 0.2 s.
PlanDetails::Time estimate_time(const OutputPlan& plan, const std::vector<std::string>& methods, const CalibData* data, int64_t search_tokens);

}  // namespace statera
