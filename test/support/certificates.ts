// X.509 certificates for one test, made by certtool.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { tmpDir } from './files.js';

const run = promisify(execFile);

export interface Identity {
  cert: string;
  key: string;
}

/** An authority in a folder of its own, and what it signs. All are paths of PEM files. */
export class Authority {
  readonly folder = tmpDir();
  readonly ca = path.join(this.folder, 'ca-cert.pem');
  readonly #key = path.join(this.folder, 'ca-key.pem');

  static async make(): Promise<Authority> {
    const authority = new Authority();
    await newKey(authority.#key);
    const template = authority.#template('ca', ['cn = stratamap test CA', 'ca', 'cert_signing_key']);
    await run('certtool', [
      '--generate-self-signed',
      '--load-privkey',
      authority.#key,
      ...template,
      '--outfile',
      authority.ca,
    ]);
    return authority;
  }

  /** For a server called localhost. */
  server(): Promise<Identity> {
    return this.#sign('server', ['cn = localhost', 'dns_name = localhost', 'tls_www_server', 'signing_key']);
  }

  /** A folder as libnbd and QEMU look for it; without `known` it has no certificate of a client. */
  async client(known = true): Promise<string> {
    const folder = path.join(this.folder, known ? 'client' : 'nobody');
    mkdirSync(folder);
    copyFileSync(this.ca, path.join(folder, 'ca-cert.pem'));
    if (!known) return folder;
    const { cert, key } = await this.#sign('a-client', ['cn = client', 'tls_www_client', 'signing_key']);
    copyFileSync(cert, path.join(folder, 'client-cert.pem'));
    copyFileSync(key, path.join(folder, 'client-key.pem'));
    return folder;
  }

  async #sign(name: string, lines: string[]): Promise<Identity> {
    const cert = path.join(this.folder, `${name}-cert.pem`);
    const key = path.join(this.folder, `${name}-key.pem`);
    await newKey(key);
    const signer = ['--load-ca-certificate', this.ca, '--load-ca-privkey', this.#key];
    const template = this.#template(name, lines);
    await run('certtool', ['--generate-certificate', '--load-privkey', key, ...signer, ...template, '--outfile', cert]);
    return { cert, key };
  }

  #template(name: string, lines: string[]): string[] {
    const file = path.join(this.folder, `${name}.template`);
    writeFileSync(file, [...lines, 'expiration_days = 2', ''].join('\n'));
    return ['--template', file];
  }
}

const newKey = (file: string) =>
  run('certtool', ['--generate-privkey', '--key-type=ecdsa', '--curve=secp256r1', '--outfile', file]);
