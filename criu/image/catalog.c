/*
 * catalog.c - the kinds of images: name, magic, header and message of each. A new kind is one row here and one in enum
 * image_kind. Raw bytes behind a record belong to the code that writes the kind.
 *
 * The rows follow CRIU's format; Documentation/images.md has all of it.
 */
#include "bpfmap-data.pb-c.h"
#include "cgroup.pb-c.h"
#include "core.pb-c.h"
#include "cpuinfo.pb-c.h"
#include "fdinfo.pb-c.h"
#include "file-lock.pb-c.h"
#include "fs.pb-c.h"
#include "fsnotify.pb-c.h"
#include "ghost-file.pb-c.h"
#include "image/image.h"
#include "inventory.pb-c.h"
#include "ipc-msg.pb-c.h"
#include "ipc-sem.pb-c.h"
#include "ipc-shm.pb-c.h"
#include "memfd.pb-c.h"
#include "mm.pb-c.h"
#include "mqueue.pb-c.h"
#include "pagemap.pb-c.h"
#include "pipe-data.pb-c.h"
#include "pstree.pb-c.h"
#include "remap-file-path.pb-c.h"
#include "seccomp.pb-c.h"
#include "sk-packet.pb-c.h"
#include "stats.pb-c.h"
#include "tcp-stream.pb-c.h"
#include "timens.pb-c.h"
#include "tracking.pb-c.h"
#include "tty.pb-c.h"
#include "utsns.pb-c.h"

/* clang-format off */
#define common(name, pattern, magic, message) \
	{ name, pattern, magic, HEADER_COMMON, &message##__descriptor, NULL }
/* The first record is of another type than the following ones. */
#define headed(name, pattern, magic, message, following) \
	{ name, pattern, magic, HEADER_COMMON, &message##__descriptor, &following##__descriptor }

const struct image_type image_types[IMAGE_KINDS] = {
	[IMAGE_INVENTORY]     = { "INVENTORY", "inventory.img", 0x58313116, HEADER_BARE,
				  &inventory_entry__descriptor, NULL },
	[IMAGE_FDINFO]        = common("FDINFO", "fdinfo-%lu.img", 0x56213732, fdinfo_entry),
	[IMAGE_PAGEMAP]       = headed("PAGEMAP", "pagemap-%lu.img", 0x56084025, pagemap_head, pagemap_entry),
	[IMAGE_SHMEM_PAGEMAP] = headed("SHMEM_PAGEMAP", "pagemap-shmem-%lu.img", 0x56084025,
				       pagemap_head, pagemap_entry),
	[IMAGE_CORE]          = common("CORE", "core-%lu.img", 0x55053847, core_entry),
	[IMAGE_IDS]           = common("IDS", "ids-%lu.img", 0x54432030, task_kobj_ids_entry),
	[IMAGE_MM]            = common("MM", "mm-%lu.img", 0x57492820, mm_entry),
	[IMAGE_PIPES_DATA]    = common("PIPES_DATA", "pipes-data.img", 0x56453709, pipe_data_entry),
	[IMAGE_FIFO_DATA]     = common("FIFO_DATA", "fifo-data.img", 0x59333054, pipe_data_entry),
	[IMAGE_BPFMAP_DATA]   = common("BPFMAP_DATA", "bpfmap-data.img", 0x64324033, bpfmap_data_entry),
	[IMAGE_PSTREE]        = common("PSTREE", "pstree.img", 0x50273030, pstree_entry),
	[IMAGE_FS]            = common("FS", "fs-%lu.img", 0x51403912, fs_entry),
	[IMAGE_FILES]         = common("FILES", "files.img", 0x56303138, file_entry),
	[IMAGE_REMAP_FPATH]   = common("REMAP_FPATH", "remap-fpath.img", 0x59133954, remap_file_path_entry),
	[IMAGE_GHOST_FILE]    = headed("GHOST_FILE", "ghost-file-%lx.img", 0x52583605,
				       ghost_file_entry, ghost_chunk_entry),
	[IMAGE_MEMFD_INODE]   = common("MEMFD_INODE", "memfd.img", 0x48453499, memfd_inode_entry),
	[IMAGE_TTY_INFO]      = common("TTY_INFO", "tty-info.img", 0x59453036, tty_info_entry),
	[IMAGE_TTY_DATA]      = common("TTY_DATA", "tty-data.img", 0x59413026, tty_data_entry),
	[IMAGE_SK_QUEUES]     = common("SK_QUEUES", "sk-queues.img", 0x56264026, sk_packet_entry),
	[IMAGE_FILE_LOCKS]    = common("FILE_LOCKS", "filelocks.img", 0x54323616, file_lock_entry),
	[IMAGE_PAGES]         = { "PAGES", "pages-%lu.img", 0, HEADER_RAW, NULL, NULL },
	[IMAGE_PACKED_PAGES]  = { "PACKED_PAGES", "pages-lz4-%lu.img", 0, HEADER_RAW, NULL, NULL }, /* ours */
	[IMAGE_SECCOMP]       = common("SECCOMP", "seccomp.img", 0x64413049, seccomp_entry),
	[IMAGE_CGROUP]        = common("CGROUP", "cgroup.img", 0x59383330, cgroup_entry),
	[IMAGE_UTSNS]         = common("UTSNS", "utsns-%lu.img", 0x54473203, utsns_entry),
	[IMAGE_IPCNS_SHM]     = common("IPCNS_SHM", "ipcns-shm-%lu.img", 0x46283044, ipc_shm_entry),
	[IMAGE_IPCNS_SEM]     = common("IPCNS_SEM", "ipcns-sem-%lu.img", 0x59573019, ipc_sem_entry),
	[IMAGE_IPCNS_MSG]     = common("IPCNS_MSG", "ipcns-msg-%lu.img", 0x55453737, ipc_msg_entry),
	[IMAGE_TCP_STREAM]    = common("TCP_STREAM", "tcp-stream-%lx.img", 0x51465506, tcp_stream_entry),
	[IMAGE_MQUEUE]        = common("MQUEUE", "mqueue.img", 0x4555514d, mqueue_entry), /* ours */
	[IMAGE_TIMENS]        = common("TIMENS", "timens-%lu.img", 0x43114433, timens_entry),
	[IMAGE_CPUINFO]       = common("CPUINFO", "cpuinfo.img", 0x61404013, cpuinfo_entry),
	[IMAGE_TRACKING]      = common("TRACKING", "tracking.img", 0x4b415254, tracking_entry), /* ours */
	[IMAGE_HASHES]        = common("HASHES", "hashes-%lu.img", 0x48534148, page_hashes_entry), /* ours */
	[IMAGE_INOTIFY_EVENTS] = common("INOTIFY_EVENTS", "inotify-events.img", 0x56454e49,
					inotify_events_entry), /* ours */
	/* In the work directory, which is a store of its own. */
	[IMAGE_STATS]         = { "STATS", "stats-%s", 0x57093306, HEADER_SERVICE,
				  &stats_entry__descriptor, NULL },
};
/* clang-format on */
