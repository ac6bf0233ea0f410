/* libgcc_eh of a glibc toolchain asks glibc for the unwind tables of an address; musl has no such
   function, but can list the loaded objects. The layout is that of glibc's <dlfcn.h>. */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>

struct found {
    unsigned long long flags;
    char *start, *end;
    void *map, *eh_frame;
    unsigned long long reserved[7];
};

struct query {
    char *address;
    struct found *found;
};

static int look(struct dl_phdr_info *info, size_t size, void *data) {
    struct query *query = data;
    char *base = (char *)info->dlpi_addr, *tables = NULL;
    int inside = 0;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        char *start = base + part->p_vaddr, *end = start + part->p_memsz;
        if (part->p_type == PT_GNU_EH_FRAME) tables = start;
        if (part->p_type == PT_LOAD && start <= query->address && query->address < end) {
            inside = 1;
            query->found->start = start;
            query->found->end = end;
        }
    }
    query->found->eh_frame = tables;
    return inside && tables;
}

int _dl_find_object(void *address, struct found *found) {
    struct query query = {address, found};
    return dl_iterate_phdr(look, &query) ? 0 : -1;
}
