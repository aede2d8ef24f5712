/*
 * compression.h - whether the pages of new images are compressed.
 */
#ifndef CRIU_IMAGE_COMPRESSION_H
#define CRIU_IMAGE_COMPRESSION_H

enum compression {
	COMPRESS_NEVER,
	COMPRESS_ALWAYS,
	COMPRESS_AUTO, /* those that are known to be large (page_files.h), while that is faster than the disk */
};

#endif
