// SPDX-License-Identifier: LGPL-2.1-only
// A saved connection: the value, what may be in it, and its byte string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "soccr/soccr.h"

struct soccr_saved {
  soccr_fields fields{};
  std::vector<std::byte> inq, outq;
};

namespace soccr {

using Saved = std::unique_ptr<soccr_saved>;

// Did the peer's FIN arrive, have we queued our own?
bool received_fin(unsigned state);
bool queued_fin(unsigned state);

// Where the queues begin. The FIN behind a queue has a sequence number of its own, and so has the SYN before it.
std::uint32_t inq_start(const soccr_fields& fields);
std::uint32_t outq_start(const soccr_fields& fields);

// Throws a base::Error with EINVAL for fields that no connection can have, or that the kernel would not survive well.
void validate(const soccr_fields& fields);

std::size_t encoded_size(const soccr_saved& saved);
void encode(const soccr_saved& saved, std::byte* to);
Saved decode(std::span<const std::byte> bytes);

}  // namespace soccr
