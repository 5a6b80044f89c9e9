// SPDX-License-Identifier: LGPL-2.1-only
#include <cstdint>

#include "restorer/builder.hpp"

namespace criu::restorer {

namespace {

// The linked restorer, as text made by the build.
alignas(16) constexpr std::uint8_t bytes[] = {
#include "restorer.inc"
};

}  // namespace

std::span<const std::byte> code() { return std::as_bytes(std::span(bytes)); }

}  // namespace criu::restorer
