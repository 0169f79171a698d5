// How long a run will take: its work counted from shapes, divided by rates measured here and now.
#pragma once

#include "quant/output_plan.h"
#include "quant/pipeline.h"
#include "quant/plan_details.h"

namespace statera {

// Takes about 0.2 s.
PlanDetails::Time estimate_time(const OutputPlan& plan, const QuantizeSettings& settings);

}  // namespace statera
