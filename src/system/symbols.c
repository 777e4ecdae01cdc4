#define _GNU_SOURCE
#include "symbols.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

enum { MOST = 64 };

/* An address in the object that this code is in. */
static const char here;

/* NULL: all are there. Else the first that is not. */
static const char *find_addresses(void *self, const char *const names[], void *addresses[], size_t count)
{
  for (size_t i = 0; i < count; i++) {
    void *address = i < MOST ? dlsym(self, names[i]) : NULL;
    if (!address)
      return names[i];
    addresses[i] = address;
  }
  return NULL;
}

static void close_handle(void *handle)
{
  if (handle)
    dlclose(handle);
}

/* A handle of our own finds names in our object and in its libraries, and not in the program. If we are part of the
 * program, the names were bound as intended when it was linked. The addresses stay valid when the handle is closed. */
const char *symbols_find(const char *const names[], void *found, size_t count)
{
  void *addresses[MOST];
  Dl_info info;
  bool known = dladdr(&here, &info) && info.dli_fname && strchr(info.dli_fname, '/');
  void *self = known ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
  void *program = dlopen(NULL, RTLD_LAZY);
  const char *missing = self && self != program ? find_addresses(self, names, addresses, count) : names[0];
  if (!missing)
    memcpy(found, addresses, count * sizeof *addresses);
  close_handle(self);
  close_handle(program);
  return missing;
}

/* ---- a library's calls of itself ---- */

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))

#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __x86_64__
enum { CALL = R_X86_64_JUMP_SLOT, ADDRESS = R_X86_64_GLOB_DAT };
#else
enum { CALL = R_AARCH64_JUMP_SLOT, ADDRESS = R_AARCH64_GLOB_DAT };
#endif

/* The library as it is mapped. */
struct library {
  uintptr_t wanted; /* an address in it */
  uintptr_t base;
  const ElfW(Dyn) * dynamic;
  uintptr_t sealed_from, sealed_to; /* pages that the linker has made read-only when it had bound all names */
};

struct relocations {
  const ElfW(Rela) * first;
  size_t size;
};

static bool holds(const struct dl_phdr_info *info, uintptr_t address)
{
  for (int i = 0; i < info->dlpi_phnum; i++) {
    uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    if (info->dlpi_phdr[i].p_type == PT_LOAD && address >= from && address - from < info->dlpi_phdr[i].p_memsz)
      return true;
  }
  return false;
}

static void note_segment(struct library *library, uintptr_t from, const ElfW(Phdr) * segment)
{
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  if (segment->p_type == PT_DYNAMIC)
    library->dynamic = (const void *)from;
  if (segment->p_type != PT_GNU_RELRO)
    return;
  library->sealed_from = from / page * page;
  library->sealed_to = (from + segment->p_memsz) / page * page;
}

static int note_library(struct dl_phdr_info *info, size_t size, void *data)
{
  struct library *library = data;
  (void)size;
  if (!holds(info, library->wanted))
    return 0;
  library->base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++)
    note_segment(library, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, &info->dlpi_phdr[i]);
  return 1;
}

static const ElfW(Dyn) * entry(const struct library *library, ElfW(Sxword) tag)
{
  const ElfW(Dyn) *dynamic = library->dynamic;
  while (dynamic->d_tag != tag && dynamic->d_tag != DT_NULL)
    dynamic++;
  return dynamic->d_tag == tag ? dynamic : NULL;
}

/* glibc puts the base in itself, musl does not. */
static const void *table(const struct library *library, ElfW(Sxword) tag)
{
  const ElfW(Dyn) *found = entry(library, tag);
  uintptr_t address = found ? found->d_un.d_ptr : 0;
  return (const void *)(address && address < library->base ? library->base + address : address);
}

static struct relocations relocations(const struct library *library, ElfW(Sxword) tag, ElfW(Sxword) size)
{
  const ElfW(Dyn) *bytes = entry(library, size);
  struct relocations found = {table(library, tag), bytes ? bytes->d_un.d_val : 0};
  return found.first ? found : (struct relocations){0};
}

static bool is_sealed(const struct library *library, uintptr_t place)
{
  return place >= library->sealed_from && place < library->sealed_to;
}

static bool seal(const struct library *library, int protection)
{
  return mprotect((void *)library->sealed_from, library->sealed_to - library->sealed_from, protection) == 0;
}

/* Another thread may be calling through it. */
static void bind_slot(const struct library *library, uintptr_t place, uintptr_t address)
{
  uintptr_t *slot = (uintptr_t *)place;
  if (__atomic_load_n(slot, __ATOMIC_RELAXED) == address)
    return;
  bool sealed = is_sealed(library, place);
  if (sealed && !seal(library, PROT_READ | PROT_WRITE))
    return;
  __atomic_store_n(slot, address, __ATOMIC_RELAXED);
  if (sealed)
    seal(library, PROT_READ);
}

static void bind_inward(const struct library *library, struct relocations all)
{
  const ElfW(Sym) *symbols = table(library, DT_SYMTAB);
  for (const ElfW(Rela) *one = all.first; symbols && one < all.first + all.size / sizeof *one; one++) {
    const ElfW(Sym) *symbol = symbols + ELF64_R_SYM(one->r_info);
    bool named = ELF64_R_TYPE(one->r_info) == CALL || ELF64_R_TYPE(one->r_info) == ADDRESS;
    if (named && symbol->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol->st_info) == STT_FUNC)
      bind_slot(library, library->base + one->r_offset, library->base + symbol->st_value);
  }
}

void symbols_bind_inward(const void *function)
{
  struct library library = {.wanted = (uintptr_t)function};
  if (!dl_iterate_phdr(note_library, &library) || !library.dynamic)
    return;
  bind_inward(&library, relocations(&library, DT_RELA, DT_RELASZ));
  bind_inward(&library, relocations(&library, DT_JMPREL, DT_PLTRELSZ));
}

#else

void symbols_bind_inward(const void *function)
{
  (void)function;
}

#endif
