# Makefile - builds criu and all that belongs to it. Sources are found, not listed: a new file needs no line here.
#
#	make                            build/criu and its manual page
#	make check | check-live | bench unit tests (no privileges) | tests on real processes (root) | against a peer
#	make curves                     draws time against the size of a tree, in Documentation/curves (root)
#	make check-vm                   tests on real processes, on three other kernels (root)
#	make cross                      compiles for aarch64 what is not under arch/, and links the blobs
#	make lint | format              the rules of the house | what clang-format can do about them
#	make install PREFIX=/usr DESTDIR=/tmp/image
#	make SANITIZE=address,undefined check       into a directory of its own
#	make CC=clang                   V=1 shows the commands
#
# Needs gcc or clang, binutils, pkg-config, protobuf-c with protoc-c, libnl-3, liblz4; for tests cmocka (scripts/dependencies).

VERSION := 4.2.1
PREFIX  ?= /usr/local
HOST_ARCH := $(patsubst x86_64,x86,$(shell uname -m))
ARCH    ?= $(HOST_ARCH)
comma   := ,
BUILD   ?= build$(if $(filter-out $(HOST_ARCH),$(ARCH)),/$(ARCH))$(if $(SANITIZE),/$(subst $(comma),-,$(SANITIZE)))
OBJECTS := $(BUILD)/objects
HOSTCC  ?= $(CC)
PKG_CONFIG ?= pkg-config
OBJCOPY := $(shell $(CC) -print-prog-name=objcopy)

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDARY:
ifndef V
.SILENT:
endif
.PHONY: all objects cross check check-live check-vm bench curves lint format install clean tests FORCE

# --- Flags -------------------------------------------------------------------------------------------------------

LIBRARIES     := libprotobuf-c libnl-3.0 liblz4
WARNINGS      := -Wall -Wextra -Wmissing-prototypes -Wvla -Werror
INCLUDES      := -Icriu -Iinclude -Icompel -Iinclude/arch/$(ARCH) -Icompel/arch/$(ARCH) -I$(BUILD)/images
OPTIMIZATION  ?= -O2 -g
SANITIZER     := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
LIBRARY_FLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBRARIES))
# Since GCC 15, bytes of a union that its initializer does not name may be anything. bpf(2) demands zeros.
ZERO_UNIONS   := $(shell $(CC) -fzero-init-padding-bits=unions -E -x c /dev/null >/dev/null 2>&1 && \
			echo -fzero-init-padding-bits=unions)
COMPILE       := $(CC) -std=gnu11 -D_GNU_SOURCE -DCRIU_VERSION='"$(VERSION)"' $(OPTIMIZATION) $(WARNINGS) $(INCLUDES) \
		 $(SANITIZER)$(if $(ZERO_UNIONS), $(ZERO_UNIONS)) $(LIBRARY_FLAGS) $(CFLAGS) -MMD -MP
LINK          := $(CC) $(OPTIMIZATION) $(SANITIZER) -Wl,-O1,--as-needed $(LDFLAGS)
EXPORTS       := criu/plugins/exports.list
LINK_WITH     := $(shell $(PKG_CONFIG) --libs $(LIBRARIES))

# Of each architecture: flags for blobs, and how many bytes the linker reserves in a global offset table that is empty.
BLOB_FLAGS_x86     := -fcf-protection=none
BLOB_FLAGS_aarch64 := -mbranch-protection=none -mno-outline-atomics
EMPTY_GOT_x86      := 0
EMPTY_GOT_aarch64  := 8

# A blob runs inside somebody else: no libc, no relocations, no vector registers, no sanitizers ever.
BLOB_COMPILE  := $(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g $(WARNINGS) $(INCLUDES) $(CFLAGS) -MMD -MP \
		 -ffreestanding -fno-builtin -fPIC -fvisibility=hidden -mgeneral-regs-only -fno-stack-protector \
		 -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-tree-loop-distribute-patterns -U_FORTIFY_SOURCE \
		 -nostdlib $(BLOB_FLAGS_$(ARCH))
ifneq ($(findstring clang,$(shell $(CC) --version)),)
BLOB_COMPILE  := $(filter-out -fno-tree-loop-distribute-patterns,$(BLOB_COMPILE))
endif
# As a position-independent executable every absolute address shows up as a relocation, and can be refused. blob.lds
# has to put what the linker adds for that (.dynamic, .dynsym, .dynstr, .hash, .gnu.hash) last: it is cut off again.
BLOB_LINK     := $(CC) -nostdlib -static-pie -Wl,--no-dynamic-linker,--build-id=none,-z,noexecstack,-z,norelro,--no-warn-rwx-segments,--defsym=empty_got=$(EMPTY_GOT_$(ARCH))

# --- What there is -----------------------------------------------------------------------------------------------

find       = $(sort $(shell find $(1) $(2) 2>/dev/null))
own_arch  := $(wildcard $(addsuffix /$(ARCH)/*.[cS],criu/arch compel/arch))
# generic/X.c serves where the architecture has no X.c of its own
generic   := $(foreach source,$(wildcard criu/arch/generic/*.c compel/arch/generic/*.c),\
		$(if $(filter $(subst /generic/,/$(ARCH)/,$(source)),$(own_arch)),,$(source)))
SOURCES   := $(call find,criu,-name '*.c' -not -path 'criu/blobs/*' -not -path 'criu/arch/*') \
	     $(wildcard criu/arch/*.c) $(wildcard compel/*.c) $(own_arch) $(generic)
PROTOS    := $(wildcard images/*.proto)
MESSAGES  := $(PROTOS:images/%.proto=$(BUILD)/images/%.pb-c.h)
BLOBS     := $(foreach blob,parasite restorer,$(if $(wildcard criu/blobs/$(blob)/*.c),$(blob)))
LIBRARY   := $(OBJECTS)/criu.a
MEMBERS   := $(patsubst %,$(OBJECTS)/%.o,$(basename $(filter-out criu/main.c,$(SOURCES)))) \
	     $(MESSAGES:$(BUILD)/images/%.pb-c.h=$(OBJECTS)/images/%.pb-c.o) \
	     $(BLOBS:%=$(OBJECTS)/blobs/%-blob.o)
TESTS     := $(patsubst %.c,$(BUILD)/%,$(wildcard test/unit/*_test.c))
LIVE      := $(patsubst %.c,$(BUILD)/%,$(wildcard test/live/*_test.c))
COMPEL_PARTS := $(patsubst %.c,$(OBJECTS)/%.o,$(filter-out %_test.c,$(wildcard test/live/compel_*.c)))

all: $(BUILD)/criu $(BUILD)/criu.8

# All that is not under arch/, and the blobs: as much as there is for an architecture that criu does not run on yet.
objects: $(filter-out %/arch/%,$(MEMBERS)) $(OBJECTS)/criu/main.o

# --- Program -----------------------------------------------------------------------------------------------------

# They change when the flags do, so that `make CC=clang` after `make` builds all again.
$(BUILD)/flags: flags_now = $(COMPILE) $(LINK)
$(BUILD)/blob-flags: flags_now = $(BLOB_COMPILE) $(BLOB_LINK)
$(BUILD)/flags $(BUILD)/blob-flags: FORCE
	mkdir -p $(@D)
	echo '$(subst ','\'',$(flags_now))' | cmp -s - $@ || echo '$(subst ','\'',$(flags_now))' > $@

# Plugins call some functions of criu: $(EXPORTS).
$(BUILD)/criu: $(OBJECTS)/criu/main.o $(LIBRARY) $(EXPORTS)
	echo '  LINK  $@'
	$(LINK) -Wl,--dynamic-list=$(EXPORTS) -o $@ $(filter-out $(EXPORTS),$^) $(LINK_WITH)

# An archive: a unit test takes from it what it calls. `q` keeps both of two members with the same file name.
$(LIBRARY): $(MEMBERS)
	rm -f $@
	echo '  AR    $@'
	$(AR) qcs $@ $^

$(OBJECTS)/%.o: %.c $(BUILD)/flags | $(MESSAGES)
	mkdir -p $(@D)
	echo '  CC    $@'
	$(COMPILE) -c -o $@ $<

$(OBJECTS)/%.o: %.S $(BUILD)/flags
	mkdir -p $(@D)
	echo '  CC    $@'
	$(COMPILE) -D__ASSEMBLY__ -c -o $@ $<

$(BUILD)/images/%.pb-c.h $(BUILD)/images/%.pb-c.c: images/%.proto
	mkdir -p $(@D)
	echo '  PROTO $@'
	protoc-c -Iimages --c_out=$(BUILD)/images $<

$(OBJECTS)/images/%.pb-c.o: $(BUILD)/images/%.pb-c.c $(BUILD)/flags | $(MESSAGES)
	mkdir -p $(@D)
	echo '  CC    $@'
	$(COMPILE) -w -c -o $@ $<

# --- Blobs -------------------------------------------------------------------------------------------------------

blob_objects = $(patsubst %,$(OBJECTS)/blobs/%.o,$(basename $(wildcard criu/blobs/$(1)/*.[cS] criu/blobs/$(1)/arch/$(ARCH)/*.[cS] \
		 compel/runtime/*.[cS])))

$(OBJECTS)/blobs/%.o: %.c $(BUILD)/blob-flags | $(MESSAGES)
	mkdir -p $(@D)
	echo '  BLOB  $@'
	$(BLOB_COMPILE) -c -o $@ $<

$(OBJECTS)/blobs/%.o: %.S $(BUILD)/blob-flags
	mkdir -p $(@D)
	echo '  BLOB  $@'
	$(BLOB_COMPILE) -D__ASSEMBLY__ -c -o $@ $<

define blob_rules
$(BUILD)/blobs/$(1).elf: $(call blob_objects,$(1)) criu/blobs/blob.lds $(BUILD)/blob-flags
	mkdir -p $$(@D)
	echo '  LINK  $$@'
	$(BLOB_LINK) -Wl,-T,criu/blobs/blob.lds -o $$@ $$(filter %.o,$$^)
	! readelf -rW $$@ | grep R_ || { echo '$(1): a blob must not need relocations (above)' >&2; exit 1; }
endef
$(foreach blob,$(BLOBS),$(eval $(call blob_rules,$(blob))))

$(BUILD)/blobs/%.bin: $(BUILD)/blobs/%.elf
	echo '  BIN   $@'
	$(OBJCOPY) -O binary -R .got -R .got.plt -R .dynamic -R .dynsym -R .dynstr -R .hash -R .gnu.hash $< $@

$(OBJECTS)/blobs/%-blob.o: $(BUILD)/blobs/%.bin
	mkdir -p $(@D)
	printf '.section .rodata\n.balign 4096\n.globl %s_blob_start, %s_blob_end\n%s_blob_start:\n.incbin "%s"\n%s_blob_end:\n.section .note.GNU-stack,"",@progbits\n' \
		$* $* $* $< $* | $(CC) -x assembler -c -o $@ -

# --- Manual page: a text, and the table of options ---------------------------------------------------------------

$(BUILD)/manual: Documentation/manual.c criu/cli/options.def criu/cli/table.h criu/cli/options.h $(BUILD)/flags
	mkdir -p $(@D)
	echo '  CC    $@'
	$(HOSTCC) -std=gnu11 -D_GNU_SOURCE -O1 $(WARNINGS) -Icriu -Iinclude -DCRIU_VERSION='"$(VERSION)"' -o $@ $<

$(BUILD)/criu.8: Documentation/criu.8.in $(BUILD)/manual
	$(BUILD)/manual < $< > $@

# --- Tests and tools ---------------------------------------------------------------------------------------------

tests: $(TESTS)

$(BUILD)/test/unit/%_test: $(OBJECTS)/test/unit/%_test.o $(LIBRARY)
	mkdir -p $(@D)
	echo '  LINK  $@'
	$(LINK) -o $@ $^ $(LINK_WITH) -lcmocka

check: $(TESTS)
	scripts/check-unit $(TESTS)

$(BUILD)/test/live/%_test: $(OBJECTS)/test/live/%_test.o $(LIBRARY)
	mkdir -p $(@D)
	echo '  LINK  $@'
	$(LINK) -o $@ $(filter %.o,$^) $(LIBRARY) $(LINK_WITH) -lcmocka

$(BUILD)/test/live/compel_test: $(COMPEL_PARTS)

check-live: all $(LIVE)
	for test in $(LIVE); do $$test || exit 1; done
	test/live/run --criu $(abspath $(BUILD)/criu)

# aarch64-linux-gnu-gcc: Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
cross:
	$(MAKE) ARCH=aarch64 CC=aarch64-linux-gnu-gcc OPTIMIZATION='-O1 -g' objects

check-vm:
	test/vm/run --kernel 6.1 --kernel 6.12 --kernel newest

bench: all
	bench/run $(abspath $(BUILD)/criu)

curves: all
	bench/curves $(abspath $(BUILD)/criu)

lint:
	scripts/lint

format:
	scripts/format

install: all
	install -D -m 755 $(BUILD)/criu $(DESTDIR)$(PREFIX)/sbin/criu
	install -D -m 644 $(BUILD)/criu.8 $(DESTDIR)$(PREFIX)/share/man/man8/criu.8
	install -D -m 644 include/criu-plugin.h $(DESTDIR)$(PREFIX)/include/criu/criu-plugin.h

clean:
	rm -rf build

-include $(call find,$(BUILD),-name '*.d')
