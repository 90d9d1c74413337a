// A first root file system for Linux guests: Debian's static busybox under all its names, the wanted kernel modules, files of the caller's
// and an /init that mounts what a system needs, loads the modules, and runs a script or a shell; then the machine powers off.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { type CpioEntry, cpioArchive } from "../../boot/cpio.ts";
import { kernelModules } from "./kernel-modules.ts";

const execute = promisify(execFile);
const encoder = new TextEncoder();

/** What a guest needs for every virtio device that the machine has, and for file systems on its disks. */
export const VIRTIO_MODULES: readonly string[] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4"];

export interface InitramfsFile {
  readonly data: Uint8Array | string;
  readonly mode?: number;
}

export interface InitramfsOptions {
  /** A statically linked busybox that runs on this host. */
  readonly busybox: string;
  /** The kernel's module folder (lib/modules/RELEASE); needed where `modules` names any. */
  readonly modulesDir?: string;
  /** Kernel modules to load, by name; what they need comes along. */
  readonly modules?: readonly string[];
  /** A shell script to run instead of the interactive shell. Its exit status is printed if it is not 0. */
  readonly script?: string;
  /** More files, by path. */
  readonly files?: Readonly<Record<string, InitramfsFile>>;
  /** Printed once before the script or shell starts. */
  readonly banner?: string;
  /** Compress with gzip: smaller, but the guest has to unpack it. */
  readonly gzip?: boolean;
}

const MODULE_ORDER = "lib/modules/load";

// The console is reopened by its own name for the shell: /dev/console can be no controlling terminal, and without one there is no job
// control (Linux, drivers/tty/tty_io.c). cttyhack finds it in sysfs.
function initScript(options: InitramfsOptions, moduleFiles: boolean): string {
  const lines = [
    "#!/bin/sh",
    "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root",
    "mount -t devtmpfs devtmpfs /dev 2>/dev/null",
    "mount -t proc proc /proc",
    "mount -t sysfs sysfs /sys",
    "mkdir -p /dev/pts /dev/shm",
    "mount -t devpts devpts /dev/pts",
    "mount -t tmpfs -o mode=1777 tmpfs /tmp",
    "mount -t tmpfs tmpfs /run",
  ];
  if (moduleFiles) {
    lines.push(
      `while read -r module; do insmod "/lib/modules/$module" || echo "init: $module did not load"; done < /${MODULE_ORDER}`,
    );
  }
  if (options.banner !== undefined) lines.push(`echo '${options.banner.replaceAll("'", `'\\''`)}'`);
  if (options.script !== undefined) {
    lines.push('sh /etc/script || echo "init: the script ended with status $?"');
  } else {
    lines.push(
      "hostname skep",
      '[ -n "$LINES" ] && [ -n "$COLUMNS" ] && stty rows "$LINES" cols "$COLUMNS"',
      "cd /root",
      "setsid cttyhack sh -l",
    );
  }
  lines.push("sync", "poweroff -f", "");
  return lines.join("\n");
}

const PROFILE = `PS1='root@\\h:\\w\\$ '
export PS1
alias ll='ls -l'
`;

function bytes(data: Uint8Array | string): Uint8Array {
  return typeof data === "string" ? encoder.encode(data) : data;
}

/** Builds the archive to give a kernel as its initrd. The same options give the same bytes. */
export async function buildInitramfs(options: InitramfsOptions): Promise<Uint8Array> {
  const entries: CpioEntry[] = [];
  for (const path of ["dev", "proc", "sys", "run", "mnt", "root", "usr/bin", "usr/sbin", "sbin"]) {
    entries.push({ kind: "directory", path, mode: 0o755 });
  }
  entries.push({ kind: "directory", path: "tmp", mode: 0o1777 });
  // For kernels without devtmpfs: init's own console and the sink of its messages.
  entries.push({ kind: "character", path: "dev/console", mode: 0o600, major: 5, minor: 1 });
  entries.push({ kind: "character", path: "dev/null", mode: 0o666, major: 1, minor: 3 });

  entries.push({ kind: "file", path: "bin/busybox", mode: 0o755, data: await readFile(options.busybox) });
  const { stdout } = await execute(options.busybox, ["--list"]);
  for (const applet of stdout.split("\n")) {
    if (applet !== "" && applet !== "busybox")
      entries.push({ kind: "symlink", path: `bin/${applet}`, target: "busybox" });
  }

  let hasModules = false;
  if (options.modules !== undefined && options.modules.length > 0) {
    if (options.modulesDir === undefined) throw new Error("kernel modules are wanted, but their folder is not given");
    const modules = await kernelModules(options.modulesDir, options.modules);
    for (const module of modules) {
      entries.push({ kind: "file", path: `lib/modules/${module.name}.ko`, mode: 0o644, data: module.data });
    }
    const order = modules.map((module) => `${module.name}.ko\n`).join("");
    entries.push({ kind: "file", path: MODULE_ORDER, mode: 0o644, data: encoder.encode(order) });
    hasModules = modules.length > 0;
  }

  entries.push({ kind: "file", path: "init", mode: 0o755, data: encoder.encode(initScript(options, hasModules)) });
  entries.push({
    kind: "file",
    path: "etc/passwd",
    mode: 0o644,
    data: encoder.encode("root::0:0:root:/root:/bin/sh\n"),
  });
  entries.push({ kind: "file", path: "etc/group", mode: 0o644, data: encoder.encode("root:x:0:\n") });
  if (options.script === undefined) {
    entries.push({ kind: "file", path: "etc/profile", mode: 0o644, data: encoder.encode(PROFILE) });
  } else {
    entries.push({ kind: "file", path: "etc/script", mode: 0o755, data: encoder.encode(options.script) });
  }
  for (const [path, file] of Object.entries(options.files ?? {})) {
    entries.push({ kind: "file", path: path.replace(/^\/+/, ""), mode: file.mode ?? 0o644, data: bytes(file.data) });
  }

  const archive = cpioArchive(entries);
  // The header's time stays 0, so that the result depends on nothing but the contents.
  return options.gzip ? gzipSync(archive, { level: 9 }) : archive;
}
