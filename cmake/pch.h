// The narrow precompiled header of nn and above: what almost every one of those files includes anyway.
// Every file still includes what it uses (the nopch preset checks).
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
