// SPDX-License-Identifier: GPL-2.0-only
// compel: packs a freestanding program into a blob, and says how to compile and link one.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "pack.hpp"

namespace {

constexpr unsigned vector_flag = 1;  // COMPEL_BLOB_VECTOR

const char usage[] =
    "usage: compel pack INPUT -o OUTPUT [-n NAME] [--vector]   make a header with `struct compel_blob NAME`\n"
    "       compel cflags [--vector]                           flags to compile C++ for a blob\n"
    "       compel ldflags                                     flags to link it, behind the objects\n"
    "       compel --version\n"
    "\n"
    "  -o, --output FILE  the header to write, - for stdout\n"
    "  -n, --name NAME    the name of the variable (parasite_blob)\n"
    "      --vector       the code may use vector and floating-point registers; they are then saved around each run\n";

int fail(const std::string& text) {
  std::fprintf(stderr, "compel: %s\n", text.c_str());
  return 1;
}

bool is_identifier(const std::string& name) {
  return !name.empty() && (name[0] < '0' || name[0] > '9') &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

int pack_command(int count, char** words) {
  std::string input, output, name = "parasite_blob";
  unsigned flags = 0;
  for (int i = 0; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--vector") {
      flags |= vector_flag;
    } else if (word == "-o" || word == "--output" || word == "-n" || word == "--name") {
      if (++i == count) {
        return fail("pack: " + word + " needs a value");
      }
      (word == "-o" || word == "--output" ? output : name) = words[i];
    } else if ((word.size() > 1 && word[0] == '-') || !input.empty()) {
      return fail("pack: unexpected argument " + word);
    } else {
      input = word;
    }
  }
  if (input.empty() || output.empty() || !is_identifier(name)) {
    return fail("pack: needs an input file, -o and a name that is a C identifier");
  }
  std::ifstream file(input, std::ios::binary);
  const std::vector<unsigned char> elf((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) {
    return fail(input + ": " + std::strerror(errno));
  }
  std::string text;
  try {
    text = pack::header(pack::read_program(elf), name, flags);
  } catch (const pack::Refused& refused) {
    return fail(input + ": " + refused.what());
  }
  std::FILE* out = output == "-" ? stdout : std::fopen(output.c_str(), "we");
  if (out == nullptr) {
    return fail(output + ": " + std::strerror(errno));
  }
  bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  written = (out == stdout ? std::fflush(out) : std::fclose(out)) == 0 && written;
  return written ? 0 : fail(output + ": " + std::strerror(errno));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "pack") {
    return pack_command(argc - 2, argv + 2);
  }
  const bool vector = argc == 3 && std::strcmp(argv[2], "--vector") == 0;
  if (command == "cflags" && (argc == 2 || vector)) {
    std::printf("-I%s %s%s\n", COMPEL_INCLUDE_DIR, COMPEL_CFLAGS, vector ? "" : " -mgeneral-regs-only");
  } else if (command == "ldflags" && argc == 2) {
    std::printf("%s -Wl,-T,%s/blob.lds %s/libcompel-runtime.a\n", COMPEL_LDFLAGS, COMPEL_DATA_DIR, COMPEL_LIB_DIR);
  } else if (command == "--version" && argc == 2) {
    std::printf("compel %s\n", COMPEL_VERSION);
  } else if ((command == "--help" || command == "-h") && argc == 2) {
    std::fputs(usage, stdout);
  } else {
    std::fputs(usage, stderr);
    return 2;
  }
  return 0;
}
