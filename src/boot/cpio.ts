// The archive that Linux unpacks into its first root file system, in the "newc" format.
// Linux, Documentation/driver-api/early-userspace/buffer-format.rst: a header of "070701" and 13 fields of 8 hexadecimal digits, the name
// with its NUL, the data; name and data each padded to 4 bytes; the entry TRAILER!!! ends the archive.
//
// The same entries give the same bytes: sorted by path, owned by root, dated at the epoch, inodes counted up.

/** One entry of an archive. Paths are relative to the root, without a leading slash; parent folders need not be listed. */
export type CpioEntry =
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | {
      readonly kind: "character" | "block";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

/** File types of `st_mode`, as POSIX's <sys/stat.h> on Linux has them. */
const FILE_TYPE = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
} as const;

const HEADER_BYTES = 110;
const TRAILER = "TRAILER!!!";
const encoder = new TextEncoder();
const none = new Uint8Array(0);

interface Record {
  readonly name: Uint8Array;
  readonly data: Uint8Array;
  readonly mode: number;
  readonly links: number;
  readonly major: number;
  readonly minor: number;
}

function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}

function checkedPath(path: string): string {
  const parts = path.split("/");
  if (path === "" || path.includes("\0") || parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new RangeError(`"${path}" is no path inside an archive`);
  }
  return path;
}

function record(entry: CpioEntry): Record {
  const device = entry.kind === "character" || entry.kind === "block";
  const mode = FILE_TYPE[entry.kind] | ((entry.kind === "symlink" ? 0o777 : entry.mode) & 0o7777);
  return {
    name: encoder.encode(`${entry.path}\0`),
    data: entry.kind === "file" ? entry.data : entry.kind === "symlink" ? encoder.encode(entry.target) : none,
    mode,
    links: entry.kind === "directory" ? 2 : 1,
    major: device ? entry.major : 0,
    minor: device ? entry.minor : 0,
  };
}

/** The entries by path, with the parent folders that nobody listed. A path listed twice is an error. */
function complete(entries: Iterable<CpioEntry>): CpioEntry[] {
  const byPath = new Map<string, CpioEntry>();
  for (const entry of entries) {
    if (byPath.has(checkedPath(entry.path))) throw new RangeError(`"${entry.path}" is in the archive twice`);
    byPath.set(entry.path, entry);
  }
  for (const path of [...byPath.keys()]) {
    for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
      const parent = path.slice(0, slash);
      const present = byPath.get(parent);
      if (present === undefined) byPath.set(parent, { kind: "directory", path: parent, mode: 0o755 });
      else if (present.kind !== "directory")
        throw new RangeError(`"${parent}" is no directory, but "${path}" is in it`);
    }
  }
  // By code unit, so that the order depends on no locale; a parent sorts before what is in it.
  return [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Writes an uncompressed archive. */
export function cpioArchive(entries: Iterable<CpioEntry>): Uint8Array {
  const records = complete(entries).map(record);
  records.push({ name: encoder.encode(`${TRAILER}\0`), data: none, mode: 0, links: 1, major: 0, minor: 0 });

  let size = 0;
  for (const { name, data } of records) size += padded(HEADER_BYTES + name.length) + padded(data.length);
  const archive = new Uint8Array(size);

  let at = 0;
  records.forEach((item, index) => {
    const inode = index === records.length - 1 ? 0 : index + 1;
    const fields = [
      inode,
      item.mode,
      0, // uid
      0, // gid
      item.links,
      0, // mtime
      item.data.length,
      0, // major and minor of the device that holds the file
      0,
      item.major,
      item.minor,
      item.name.length,
      0, // checksum, used by "070702" only
    ];
    const header = "070701" + fields.map((field) => field.toString(16).toUpperCase().padStart(8, "0")).join("");
    archive.set(encoder.encode(header), at);
    archive.set(item.name, at + HEADER_BYTES);
    at += padded(HEADER_BYTES + item.name.length);
    archive.set(item.data, at);
    at += padded(item.data.length);
  });
  return archive;
}
