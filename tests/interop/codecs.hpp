// SPDX-License-Identifier: GPL-2.0-only
// Every image type of the format: how its records are decoded and written again, and which raw bytes follow them.
#pragma once

#include <string>

#include "image/stream.hpp"

namespace interop {

// Decodes a whole image and writes what was understood, and nothing else, to the writer. Throws base::Error on
// anything that is not of this type.
using Copy = void (*)(criu::image::Reader& from, criu::image::Writer& to);

struct Codec {
  const criu::image::Type* type = nullptr;  // nullptr: raw bytes from end to end
  Copy copy = nullptr;
};

// The codec of a file by its name; throws std::runtime_error for a name the format doesn't have.
Codec codec_of(const std::string& file_name);

}  // namespace interop
