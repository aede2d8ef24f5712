/*
 * none.c - a shared library that is no plugin.
 */
int unrelated;
