# shellcheck shell=bash
# Writes a container image with nothing but tar and sha256sum: one layer, no base. To be sourced after lib.sh.
# The same files give the same digest, so an image that did not change is not loaded again.

image_archive() { printf '%s/images/%s.tar\n' "$HEBB_CACHE" "${1//[\/:]/_}"; }

architecture() {
  case $(uname -m) in
  x86_64) echo amd64 ;;
  aarch64) echo arm64 ;;
  *) uname -m ;;
  esac
}

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

# Moves a file among the archive's blobs, and prints its digest.
add_blob() {
  local digest
  digest=$(digest_of "$2")
  mv "$2" "$1/blobs/sha256/$digest"
  printf '%s\n' "$digest"
}

plain_tar() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf "$2" .; }

# write_image NAME ROOT CONFIG: packs the folder ROOT as the image NAME, and prints its digest.
# CONFIG is the inside of the image's config object, such as '"User": "65532", "Entrypoint": ["/hebb"]'.
write_image() {
  local name=$1 root=$2 config=$3 work archive layer size config_digest config_size manifest manifest_size
  local types=application/vnd.oci.image
  archive=$(image_archive "$name")
  work=$(mktemp -d)
  mkdir -p "$work/oci/blobs/sha256" "$(dirname "$archive")"
  plain_tar "$root" "$work/layer"
  size=$(stat -c %s "$work/layer")
  layer=$(add_blob "$work/oci" "$work/layer")
  printf '{"architecture":"%s","os":"linux","config":{%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(architecture)" "$config" "$layer" >"$work/config"
  config_size=$(stat -c %s "$work/config")
  config_digest=$(add_blob "$work/oci" "$work/config")
  cat >"$work/manifest" <<J
{"schemaVersion":2,"mediaType":"$types.manifest.v1+json",
"config":{"mediaType":"$types.config.v1+json","digest":"sha256:$config_digest","size":$config_size},
"layers":[{"mediaType":"$types.layer.v1.tar","digest":"sha256:$layer","size":$size}]}
J
  manifest_size=$(stat -c %s "$work/manifest")
  manifest=$(add_blob "$work/oci" "$work/manifest")
  write_index "$work/oci" "$name" "$manifest" "$manifest_size"
  # Older engines read this file instead of the index.
  printf '[{"Config":"blobs/sha256/%s","RepoTags":["%s"],"Layers":["blobs/sha256/%s"]}]' \
    "$config_digest" "$name" "$layer" >"$work/oci/manifest.json"
  plain_tar "$work/oci" "$archive.$$"
  mv "$archive.$$" "$archive"
  printf 'sha256:%s\n' "$manifest" >"$archive.digest"
  rm -rf "$work"
  cat "$archive.digest"
}

write_index() {
  printf '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
  cat >"$1/index.json" <<J
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$3","size":$4,
"annotations":{"io.containerd.image.name":"$2","org.opencontainers.image.ref.name":"${2##*:}"},
"platform":{"os":"linux","architecture":"$(architecture)"}}]}
J
}

# load_image NAME: brings the archive of write_image into the cluster that is up, unless it is there already.
load_image() {
  local name=$1 archive digest mark
  archive=$(image_archive "$name")
  digest=$(cat "$archive.digest")
  mark="$STATE/images/$(basename "$archive")"
  case $(cluster_kind) in
  local)
    if [[ $(node_ctr images ls "name==$name" | awk 'NR == 2 {print $3}') != "$digest" ]]; then
      say "    loading $name"
      node_ctr images import "$archive" >/dev/null
    fi
    return
    ;;
  kind) [[ -f $mark && $(cat "$mark") == "$digest" ]] || run_kind load image-archive --name hebb "$archive" >&2 ;;
  k3d) [[ -f $mark && $(cat "$mark") == "$digest" ]] || k3d image import --cluster hebb "$archive" >&2 ;;
  context) die "$name can't be loaded into a cluster that is not ours: push the archive $archive to its registry" ;;
  *) die "no cluster is up: run up.sh first" ;;
  esac
  mkdir -p "$STATE/images"
  printf '%s\n' "$digest" >"$mark"
}

cluster_kind() { cat "$STATE/kind" 2>/dev/null || true; }
node_ctr() { ctr -a "$STATE/node/containerd.sock" -n k8s.io "$@"; }
