/*
 * tun.h - the network device that a tun or tap file is attached to: tun_device.c.
 */
#ifndef CRIU_FILES_KINDS_TUN_H
#define CRIU_FILES_KINDS_TUN_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"
#include "tun.pb-c.h"

/* What the kernel tells of a network device of any kind. */
struct tun_device {
	bool exists, is_tun;
	int32_t owner, group; /* -1: anybody */
	uint32_t queues;      /* attached and switched off */
	uint32_t switched_off;
	TunDeviceEntry *entry; /* as asked for */
};

/* By its name, in criu's own network namespace. `entry`: takes it down, if not NULL. */
int tun_device_look(const char *name, struct tun_device *device, TunDeviceEntry *entry) must_check;
const char *tun_device_why_invalid(const TunDeviceEntry *entry);
/* Restore: is there the bridge, bond or vrf that the device was in? */
int tun_device_check_master(const char *name, const TunDeviceEntry *entry) must_check;
/* Restore: a new device gets its addresses, its MTU, its state. */
int tun_device_set_up(const char *name, const TunDeviceEntry *entry) must_check;

#endif
