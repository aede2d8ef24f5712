/*
 * distance.h - how different two texts are: for messages that guess what the user means.
 */
#ifndef CRIU_BASE_DISTANCE_H
#define CRIU_BASE_DISTANCE_H

/* The number of letters to insert, remove or change, to make one text of the other. */
unsigned text_distance(const char *a, const char *b);

#endif
