// http: one GET through libcurl with limits. The only place that knows curl.
#pragma once

#include <string>

#include "image/fetch.h"

namespace statera {

// Body of a 2xx answer. Every address connected to (also after redirects and whatever DNS says) is checked before connecting.
std::string http_get(const std::string& url, const FetchOptions& options);

}  // namespace statera
