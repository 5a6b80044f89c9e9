// SPDX-License-Identifier: GPL-2.0-only
// The kinds of image files: their magics, and what is in them.
#pragma once

#include <cstdint>
#include <string_view>

namespace crit {

enum class Family : std::uint32_t { none = 0, common = 0x54564319, service = 0x55105940 };

// The raw bytes behind a record, which JSON has as "extra".
enum class Payload { none, pipe, packet, tcp, semaphores, messages, segment, ghost, bpf_map };

struct Kind {
  const char* name;  // as JSON has it
  std::uint32_t magic;
  const char* message;
  Payload payload = Payload::none;
  const char* further = nullptr;  // the message of all records but the first, where it differs
  Family family = Family::common;
};

// Null: no such kind.
const Kind* kind_of(std::uint32_t magic);
const Kind* kind_of(std::string_view name);
// The name of a magic whose files are no images that can be decoded; null otherwise.
const char* other_magic(std::uint32_t magic);
bool is_family(std::uint32_t magic);

}  // namespace crit
