// The guest of the examples and tests: a kernel with its modules and a static busybox, from Debian's or Ubuntu's packages, by their own
// package tool and from the archives that the machine is set up for, unpacked into the cache. Nothing is installed, and root is not needed:
// where the machine's package lists are empty or out of date, lists of our own are kept in the cache.

import { execFile, spawn } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { cacheDirectory } from "./cache.ts";

const execute = promisify(execFile);

export type Flavour = "cloud" | "standard" | "rt";

export interface DebianGuest {
  /** The bzImage. */
  readonly kernel: string;
  /** The folder of loadable modules, lib/modules/RELEASE. */
  readonly modulesDir: string;
  readonly busybox: string;
  /** What `uname -r` prints in the guest. */
  readonly release: string;
}

export interface DebianGuestOptions {
  readonly flavour: Flavour;
  /** Take the newest packages even where older ones are in the cache. */
  readonly refresh?: boolean;
  readonly progress?: (line: string) => void;
}

/** The packages that stand for the newest kernel of a flavour: Debian's name, then Ubuntu's. */
const KERNEL_PACKAGES: Readonly<Record<Flavour, readonly string[]>> = {
  cloud: ["linux-image-cloud-amd64", "linux-image-virtual"],
  standard: ["linux-image-amd64", "linux-image-generic"],
  rt: ["linux-image-rt-amd64", "linux-image-realtime"],
};

const BUSYBOX_PACKAGE = "busybox-static";

/** The guest's files can't be had; the message is one line that says what to do. */
export class GuestFilesError extends Error {
  override readonly name = "GuestFilesError";
}

const OWN_FILES = "pass your own guest instead: skep run --kernel FILE --initrd FILE";

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? (error as { stderr?: string }).stderr?.trim() || error.message : String(error);
  return text.split("\n").find((line) => line.startsWith("E:")) ?? text.split("\n")[0];
}

/** apt's tools with the machine's package lists, or with lists in the cache. */
class Apt {
  private readonly folder: string;
  private readonly progress: (line: string) => void;
  private options: string[] = ["-qq", "-o", "APT::Sandbox::User=root"];
  private ownLists = false;

  constructor(folder: string, progress: (line: string) => void) {
    this.folder = folder;
    this.progress = progress;
  }

  async check(): Promise<void> {
    for (const tool of ["apt-get", "dpkg-deb"]) {
      await execute(tool, ["--version"]).catch(() => {
        throw new GuestFilesError(
          `Debian's guest files need apt-get and dpkg-deb, and there is no ${tool} here; ${OWN_FILES}`,
        );
      });
    }
    const { stdout } = await execute("dpkg", ["--print-architecture"]);
    if (stdout.trim() !== "amd64") {
      throw new GuestFilesError(
        `this machine's packages are for ${stdout.trim()}, and the guest is amd64; ${OWN_FILES}`,
      );
    }
  }

  /** Fetches package lists into the cache and uses them from now on. False where that was done already. */
  async updateOwnLists(): Promise<boolean> {
    if (this.ownLists) return false;
    this.progress("fetching the package lists (apt-get update, into the cache) ...");
    for (const path of ["lists/partial", "archives/partial"]) await mkdir(join(this.folder, path), { recursive: true });
    this.options.push("-o", `Dir::State::lists=${join(this.folder, "lists")}`, "-o", `Dir::Cache=${this.folder}`);
    this.ownLists = true;
    await execute("apt-get", [...this.options, "update"]).catch((error) => {
      throw new GuestFilesError(`apt-get update failed (${firstLine(error)}); ${OWN_FILES}`);
    });
    return true;
  }

  /** What a package depends on, or undefined where no list has it. */
  async depends(name: string): Promise<string[] | undefined> {
    const { stdout } = await execute("apt-cache", [...this.options, "depends", "--important", name]).catch(() => ({
      stdout: "",
    }));
    if (!stdout.split("\n").some((line) => line.trim() === name)) return undefined;
    return [...stdout.matchAll(/Depends:\s*(\S+)/g)].map((match) => match[1]);
  }

  /** Downloads packages into a folder, saying how far it has come. */
  async download(names: readonly string[], folder: string): Promise<string[]> {
    const { stdout } = await execute("apt-get", [...this.options, "download", "--print-uris", ...names], {
      cwd: folder,
    });
    const total = [...stdout.matchAll(/^'[^']*' \S+ (\d+) /gm)].reduce((sum, match) => sum + Number(match[1]), 0);
    const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
    this.progress(`downloading ${names.join(", ")} (${megabytes(total)} MB, apt-get download) ...`);
    const child = spawn("apt-get", [...this.options, "download", ...names], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const timer = setInterval(async () => {
      let size = 0;
      for (const file of await readdir(folder).catch(() => [])) {
        size += await stat(join(folder, file)).then(
          (info) => info.size,
          () => 0,
        );
      }
      this.progress(`... ${megabytes(size)} of ${megabytes(total)} MB`);
    }, 2000);
    const status = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    }).finally(() => clearInterval(timer));
    if (status !== 0) throw Object.assign(new Error("apt-get download failed"), { stderr });
    return (await readdir(folder)).filter((file) => file.endsWith(".deb")).map((file) => join(folder, file));
  }
}

/** The real packages of a flavour: the kernel image, its modules where they are apart, and busybox. */
async function resolvePackages(
  apt: Apt,
  flavour: Flavour,
): Promise<{ release: string; packages: string[] } | undefined> {
  for (const name of KERNEL_PACKAGES[flavour]) {
    const image = (await apt.depends(name))?.find((dependency) => /^linux-image-\d/.test(dependency));
    if (image === undefined) continue;
    const release = image.slice("linux-image-".length);
    const packages = [image];
    if ((await apt.depends(`linux-modules-${release}`)) !== undefined) packages.push(`linux-modules-${release}`);
    if ((await apt.depends(BUSYBOX_PACKAGE)) === undefined) return undefined;
    return { release, packages: [...packages, BUSYBOX_PACKAGE] };
  }
  return undefined;
}

async function findFile(root: string, choices: readonly string[]): Promise<string> {
  for (const choice of choices) if (await exists(join(root, choice))) return choice;
  throw new GuestFilesError(`Debian's packages hold none of ${choices.join(", ")}; ${OWN_FILES}`);
}

/** Unpacks downloaded packages and names the four things wanted of them, relative to the folder. */
async function unpack(archives: readonly string[], release: string, folder: string): Promise<DebianGuest> {
  for (const archive of archives) {
    await execute("dpkg-deb", ["-x", archive, folder]).catch((error) => {
      throw new GuestFilesError(`${basename(archive)} can't be unpacked (${firstLine(error)})`);
    });
  }
  return {
    release,
    kernel: await findFile(folder, [`boot/vmlinuz-${release}`]),
    modulesDir: await findFile(folder, [`lib/modules/${release}`, `usr/lib/modules/${release}`]),
    busybox: await findFile(folder, ["bin/busybox", "usr/bin/busybox"]),
  };
}

function absolute(guest: DebianGuest, folder: string): DebianGuest {
  return {
    release: guest.release,
    kernel: join(folder, guest.kernel),
    modulesDir: join(folder, guest.modulesDir),
    busybox: join(folder, guest.busybox),
  };
}

/** What an earlier call left in the cache, if all of it is still there. */
async function cached(folder: string): Promise<DebianGuest | undefined> {
  try {
    const guest = absolute(JSON.parse(await readFile(join(folder, "guest.json"), "utf8")) as DebianGuest, folder);
    for (const path of [guest.kernel, guest.modulesDir, guest.busybox]) await access(path);
    return guest;
  } catch {
    return undefined;
  }
}

/**
 * A Debian kernel, its modules and busybox, from the cache or else from the machine's package archives.
 * Fails with a `GuestFilesError` of one line where they can't be had.
 */
export async function debianGuest(options: DebianGuestOptions): Promise<DebianGuest> {
  const progress = options.progress ?? ((line: string) => process.stderr.write(`skep: ${line}\n`));
  const cache = join(cacheDirectory(), "debian");
  const folder = join(cache, options.flavour);
  if (!options.refresh) {
    const present = await cached(folder);
    if (present !== undefined) return present;
  }
  const scratch = await mkdir(cache, { recursive: true })
    .then(() => mkdtemp(join(cache, "fetch-")))
    .catch((error) => {
      throw new GuestFilesError(
        `the cache ${cache} can't be written (${firstLine(error)}); set SKEP_CACHE to another folder`,
      );
    });
  try {
    const apt = new Apt(join(cache, "apt"), progress);
    await apt.check();
    const resolve = async (): Promise<{ release: string; packages: string[] }> => {
      const found = await resolvePackages(apt, options.flavour);
      if (found !== undefined) return found;
      if (await apt.updateOwnLists()) return resolve();
      const names = [...KERNEL_PACKAGES[options.flavour], BUSYBOX_PACKAGE].join(" or ");
      throw new GuestFilesError(`the package lists have no ${names}; ${OWN_FILES}`);
    };
    let wanted = await resolve();
    let archives: string[];
    try {
      archives = await apt.download(wanted.packages, scratch);
    } catch (error) {
      // Lists may name files which the archive has replaced since.
      if (!(await apt.updateOwnLists())) throw error;
      wanted = await resolve();
      archives = await apt.download(wanted.packages, scratch);
    }
    progress("unpacking ...");
    const files = join(scratch, "files");
    await mkdir(files);
    const guest = await unpack(archives, wanted.release, files);
    await writeFile(join(files, "guest.json"), JSON.stringify(guest));
    // Another process may have come first; what it made is as good, and may be in use.
    if (options.refresh) await rm(folder, { recursive: true, force: true });
    await rename(files, folder).catch(async (error) => {
      if ((await cached(folder)) !== undefined) return;
      if (!(await exists(folder))) throw error;
      await rm(folder, { recursive: true, force: true });
      await rename(files, folder);
    });
    progress(`Debian's Linux ${guest.release} and busybox are in ${folder}`);
    return absolute(guest, folder);
  } catch (error) {
    if (error instanceof GuestFilesError) throw error;
    throw new GuestFilesError(`Debian's guest files can't be fetched (${firstLine(error)}); ${OWN_FILES}`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
