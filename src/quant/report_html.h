// The report as one HTML page: everything inline, no script, light and dark. What each figure means is in docs/reports.md.
#pragma once

#include <string>

#include "quant/report.h"

namespace statera {

std::string report_html(const QuantizeReport& report);

}  // namespace statera
