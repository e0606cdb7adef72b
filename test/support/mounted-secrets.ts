import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Secrets as Kubernetes mounts them. */
export interface MountedSecrets {
  /** Where the file of this name is, whatever it leads to. */
  path(name: string): string;
  /** Swaps all files at once, as the kubelet does: a new folder, then the link to it. */
  mount(files: Record<string, string>): Promise<void>;
  remove(): Promise<void>;
}

/** `name` → `..data/name`, `..data` → a folder of this version; each mount renames a new link over `..data`. */
export async function mountSecrets(files: Record<string, string>): Promise<MountedSecrets> {
  const root = await mkdtemp(join(tmpdir(), 'ride-secrets-'));
  let version = 0;
  const mount = async (contents: Record<string, string>) => {
    const folder = `..version-${++version}`;
    await mkdir(join(root, folder));
    for (const [name, text] of Object.entries(contents)) await writeFile(join(root, folder, name), text);
    await symlink(folder, join(root, '..data_tmp'));
    await rename(join(root, '..data_tmp'), join(root, '..data'));
    await rm(join(root, `..version-${version - 1}`), { recursive: true, force: true });
  };
  await mount(files);
  for (const name of Object.keys(files)) await symlink(join('..data', name), join(root, name));
  return {
    path: (name) => join(root, name),
    mount,
    remove: () => rm(root, { recursive: true, force: true }),
  };
}
