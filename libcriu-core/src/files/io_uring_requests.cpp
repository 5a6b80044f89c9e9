// SPDX-License-Identifier: LGPL-2.1-only
#include "files/io_uring_requests.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <sstream>

#include "kernel/procfs_fd.hpp"

namespace criu::files {

namespace {

const io_uring_sqe& as_request(std::span<const std::byte> entry) {
  return *reinterpret_cast<const io_uring_sqe*>(entry.data());
}

// Paths come with blanks and the like as octal numbers.
std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    int code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ptr == text.data() + i + 4) {
      result += static_cast<char>(code);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// "key=VALUE" in a line; 0 if it is not there.
std::int64_t value_in(const std::string& line, const char* key) {
  const auto at = line.find(std::string(key) + "=");
  return at == std::string::npos ? 0 : std::strtoll(line.c_str() + at + std::strlen(key) + 1, nullptr, 0);
}

// Whether a request that waits can be made again and be the same: nothing of it has been done.
bool can_be_repeated(const io_uring_sqe& request) {
  constexpr unsigned linked = IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_IO_DRAIN | IOSQE_BUFFER_SELECT;
  if ((request.flags & linked) != 0 || request.personality != 0) {
    return false;
  }
  switch (request.opcode) {
    case IORING_OP_POLL_ADD:
    case IORING_OP_TIMEOUT:
    case IORING_OP_ACCEPT:
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
      return true;
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
      return (request.msg_flags & MSG_WAITALL) == 0;  // some of it may have been received
    default:
      return false;
  }
}

// How the kernel counts requests: those that were taken out of the ring, less those that have ended.
std::int32_t count_in_flight(RingMemory& ring, const RingInfo& info) {
  const auto ended = info.cq_tail + static_cast<std::uint32_t>(info.kept.size()) + ring.cq_overflow();
  return static_cast<std::int32_t>(info.sq_head - ring.sq_dropped() - ended);
}

// How many of the completions that can still be seen were the last of a request with this data.
std::map<std::uint64_t, unsigned> ended_requests(RingMemory& ring, const RingInfo& info) {
  std::map<std::uint64_t, unsigned> ended;
  const auto visible = std::min(info.cq_tail, info.cq_entries);
  for (auto at = info.cq_tail - visible; at != info.cq_tail; ++at) {
    const auto& completion = ring.completion_at(at);
    if ((completion.flags & IORING_CQE_F_MORE) == 0) {
      ++ended[completion.user_data];
    }
  }
  for (const auto& completion : info.kept) {
    ended[completion.user_data] += (completion.flags & IORING_CQE_F_MORE) == 0 ? 1 : 0;
  }
  return ended;
}

// The entries of the last submissions, as far as nobody has written over them, without those that have ended; the
// latest first. A request ends before the next one with the same data does.
std::vector<std::vector<std::byte>> without_end(RingMemory& ring, const RingInfo& info) {
  auto ended = ended_requests(ring, info);
  std::map<std::uint64_t, std::vector<std::vector<std::byte>>> by_data;
  std::vector<std::uint64_t> order;
  const auto visible = std::min(info.sq_head, info.sq_entries - (ring.sq_tail() - info.sq_head));
  for (auto at = info.sq_head - visible; at != info.sq_head; ++at) {
    const auto index = ring.index_at(at);
    if (index < info.sq_entries) {
      const auto entry = ring.entry(index);
      by_data[as_request(entry).user_data].emplace_back(entry.begin(), entry.end());
      order.push_back(as_request(entry).user_data);
    }
  }
  std::vector<std::vector<std::byte>> result;
  for (const auto data : order) {
    auto& entries = by_data[data];
    auto entry = std::move(entries.front());
    entries.erase(entries.begin());
    if (ended[data] > 0) {
      --ended[data];
    } else {
      result.push_back(std::move(entry));
    }
  }
  return result;
}

}  // namespace

RingInfo parse_ring_info(const std::string& text) {
  RingInfo info;
  std::istringstream lines(text);
  enum class In { none, files, buffers, polls, kept } section = In::none;
  const auto number = [&](const char* key) { return static_cast<std::uint32_t>(kernel::number(text, key)); };
  // These come with 0x.
  const auto mask = [&](const char* key) {
    const std::string value(kernel::field(text, key).value_or(""));
    return static_cast<std::uint32_t>(std::strtoul(value.c_str(), nullptr, 16));
  };
  info.sq_entries = mask("SqMask") + 1;
  info.cq_entries = mask("CqMask") + 1;
  info.sq_head = number("CachedSqHead");
  info.cq_tail = number("CachedCqTail");
  if (const auto thread = kernel::field(text, "SqThread")) {
    info.sq_thread = std::strtoll(std::string(*thread).c_str(), nullptr, 10);
  }
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("UserFiles:")) {
      section = In::files;
      info.file_slots = number("UserFiles");
    } else if (line.starts_with("UserBufs:")) {
      section = In::buffers;
      info.buffer_slots = number("UserBufs");
    } else if (line.starts_with("PollList:")) {
      section = In::polls;
      info.complete = true;
    } else if (line.starts_with("CqOverflowList:")) {
      section = In::kept;
    } else if (!line.starts_with(" ")) {
      section = In::none;
    } else if (section == In::polls) {
      ++info.waiting[static_cast<unsigned>(value_in(line, "op"))];
    } else if (section == In::kept) {
      info.kept.push_back({static_cast<std::uint64_t>(std::strtoull(line.c_str() + line.find('=') + 1, nullptr, 10)),
                           static_cast<std::int32_t>(value_in(line, "res")),
                           static_cast<std::uint32_t>(std::strtoul(line.c_str() + line.rfind('=') + 1, nullptr, 16))});
    } else if (section == In::files || section == In::buffers) {
      const auto colon = line.find(": ");
      const auto slot = static_cast<std::uint32_t>(std::strtoul(line.c_str(), nullptr, 10));
      if (colon == std::string::npos || line.find("<none>") != std::string::npos) {
        continue;
      }
      if (section == In::files) {
        info.files.emplace_back(slot, unescaped(line.substr(colon + 2)));
        continue;
      }
      const auto slash = line.find('/', colon);
      const auto address = std::strtoull(line.c_str() + colon + 2, nullptr, 16);
      const auto length = slash == std::string::npos ? 0 : std::strtoull(line.c_str() + slash + 1, nullptr, 10);
      if (length != 0) {
        info.buffers.push_back({slot, address, length});
      }
    }
  }
  return info;
}

InFlight requests_in_flight(RingMemory& ring, const RingInfo& info) {
  InFlight result;
  auto found = without_end(ring, info);
  auto waiting = info.waiting;
  std::size_t elsewhere = 0;  // neither waiting for a file nor for a time
  for (const auto& entry : found) {
    const auto& request = as_request(entry);
    const auto place = waiting.find(request.opcode);
    const bool waits = place != waiting.end() && place->second > 0;
    if (waits) {
      --place->second;
    }
    if (!can_be_repeated(request) || (!waits && request.opcode != IORING_OP_TIMEOUT)) {
      result.has_other = true;
      result.other = request.opcode;
      ++elsewhere;
    }
  }
  const bool all_waiting_known =
      std::all_of(waiting.begin(), waiting.end(), [](const auto& count) { return count.second == 0; });
  const bool counted = count_in_flight(ring, info) == static_cast<std::int32_t>(found.size());
  const bool has_timeout = std::any_of(found.begin(), found.end(),
                                       [](const auto& entry) { return as_request(entry).opcode == IORING_OP_TIMEOUT; });
  // Requests with many completions, or with none, make the counts differ. What waits for files is counted apart.
  result.certain = all_waiting_known && (counted || (elsewhere == 0 && !has_timeout));
  result.requests = std::move(found);
  return result;
}

}  // namespace criu::files
