# archive.sh - reads Debian's archive independently of the apt configuration of this machine. Sourced by scripts that
# fetch packages without installing them (scripts/peers, test/vm/kernel).
#
# archive_open DIRECTORY SUITE... configures a separate apt in DIRECTORY/apt, with lists of these suites; archive TOOL …
# runs it. Signatures are checked with Debian's own keyring. DIRECTORY/log has the errors.

mirror_of_this_machine() {
	{
		sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1
		awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }' \
			/etc/apt/sources.list 2>/dev/null
		echo http://deb.debian.org/debian
	} | head -n 1
}

archive() {
	archive_tool=$1
	shift
	"$archive_tool" -q -o Dir::Etc::SourceList="$archive_directory/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$archive_directory/lists" -o Dir::Cache="$archive_directory/cache" \
		-o APT::Sandbox::User="$(id -un)" "$@"
}

archive_open() {
	archive_directory=$1/apt
	archive_log=$1/log
	shift
	mkdir -p "$archive_directory/lists/partial" "$archive_directory/cache/archives/partial"
	archive_mirror=$(mirror_of_this_machine)
	for archive_suite; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive_mirror $archive_suite main"
	done > "$archive_directory/sources.list"
	archive apt-get update > "$archive_log" 2>&1 || { cat "$archive_log" >&2; return 1; }
}

# The names of the packages that PACKAGE needs, and PACKAGE itself.
archive_closure() {
	archive apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances "$1" | awk '/^[a-z0-9]/ && $1 !~ /:/ { print $1 }' | sort -u
}

# Unpacks packages below a directory, without maintainer scripts. The archive may lack some of them.
archive_unpack() {
	archive_root=$1
	shift
	mkdir -p "$archive_directory/packages" "$archive_root"
	for archive_package; do
		# a virtual package has no file; its provider is in the closure under its own name
		(cd "$archive_directory/packages" && archive apt-get download "$archive_package" >> "$archive_log" 2>&1) ||
			echo "$archive_package is not a package to download" >> "$archive_log"
	done
	for archive_package in "$archive_directory"/packages/*.deb; do
		dpkg-deb -x "$archive_package" "$archive_root"
	done
}
