package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxImage is how large an image of ours may be, in bytes.
const maxImage = 40_000_000

// programs are the images of ours, and the packages of their programs.
var programs = map[string]string{
	"collector": "./services/collector/cmd/collector",
	"alerter":   "./services/alerter/cmd/alerter",
	"notifier":  "./services/notifier/cmd/notifier",
	"rehearse":  "./cmd/tocsin/cmd/rehearse",
}

// standIn marks an image that was made here in place of one from a registry.
const standIn = "dev.tocsin.compose-test.stand-in"

// build builds the programs and makes the images.
func (t *trial) build(ctx context.Context) error {
	final, err := finalStage(filepath.Join(t.root, "deploy", "Dockerfile"))
	if err != nil {
		return err
	}
	certificates, err := firstFile("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
	if err != nil {
		return fmt.Errorf("this machine has no CA certificates to put into the images (Debian: apt-get install ca-certificates): %w", err)
	}
	for name, path := range programs {
		dir := filepath.Join(t.dir, name)
		if err := t.goBuild(ctx, path, filepath.Join(dir, "out", "service")); err != nil {
			return err
		}
		if err := copyFile(certificates, filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(final), 0o600); err != nil {
			return err
		}
		image := "tocsin/" + name + ":" + t.name
		if err := t.makeImage(ctx, dir, image); err != nil {
			return err
		}
		if err := t.sayImage(ctx, image, maxImage); err != nil {
			return err
		}
	}
	nats, redis, err := foreignImages(filepath.Join(t.root, "deploy", "compose.yaml"))
	if err != nil {
		return err
	}
	t.natsTag = nats
	if err := t.foreign(ctx, nats, t.fillNATS); err != nil {
		return err
	}
	return t.foreign(ctx, redis, t.fillRedis)
}

// goBuild builds a program for the engine's platform as the Dockerfile does.
func (t *trial) goBuild(ctx context.Context, path, program string) error {
	env := append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+t.engine.arch)
	_, err := output(ctx, env, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, path)
	return err
}

// makeImage builds an image from a folder and remembers to remove it.
func (t *trial) makeImage(ctx context.Context, dir, image string) error {
	if _, err := t.engine.docker(ctx, "build", "--quiet", "--tag", image, dir); err != nil {
		return err
	}
	t.made = append(t.made, image)
	return nil
}

// sayImage tells an image's size, which must be at most most bytes (0: any).
func (t *trial) sayImage(ctx context.Context, image string, most int) error {
	out, err := t.engine.docker(ctx, "image", "inspect", "--format", "{{.Size}}", image)
	if err != nil {
		return err
	}
	var size int
	if _, err := fmt.Sscan(out, &size); err != nil {
		return fmt.Errorf("read the size of %s: %w", image, err)
	}
	t.say("%s: %.1f MB", image, float64(size)/1e6)
	if most > 0 && size > most {
		return fmt.Errorf("%s is larger than %d bytes", image, most)
	}
	return nil
}

// foreign sees to it that the engine has an image that is not ours: the real one
// where it was pulled, else one that is made here of the same program.
func (t *trial) foreign(ctx context.Context, image string, fill func(ctx context.Context, dir string) error) error {
	label, err := t.engine.docker(ctx, "image", "inspect", "--format", `{{index .Config.Labels "`+standIn+`"}}`, image)
	if err == nil && strings.TrimSpace(label) == "" {
		t.say("%s: as it was pulled", image)
		return nil
	}
	dir := filepath.Join(t.dir, regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(image, "-"))
	if err := fill(ctx, filepath.Join(dir, "root")); err != nil {
		return fmt.Errorf("make a stand-in for %s (or run docker pull %s, and it is not needed): %w", image, image, err)
	}
	text := "FROM scratch\nCOPY root /\nLABEL " + standIn + "=true\nENV PATH=/bin:/usr/bin\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
		return err
	}
	if err := t.makeImage(ctx, dir, image); err != nil {
		return err
	}
	t.say("%s: not pulled, so a stand-in was made", image)
	return nil
}

// fillNATS lays out what the image of NATS needs: the server, of the version in
// go.mod, and the shell that Alpine has.
func (t *trial) fillNATS(ctx context.Context, dir string) error {
	if err := t.goBuild(ctx, "github.com/nats-io/nats-server/v2", filepath.Join(dir, "bin", "nats-server")); err != nil {
		return err
	}
	return t.fillShell(ctx, dir)
}

// fillRedis lays out redis-server and redis-cli of this machine.
func (t *trial) fillRedis(ctx context.Context, dir string) error {
	for _, name := range []string{"redis-server", "redis-cli"} {
		if err := t.copyProgram(ctx, name, dir); err != nil {
			return err
		}
	}
	return t.fillShell(ctx, dir)
}

// fillShell lays out busybox under the names that deploy/ uses of it, and the
// folder that everybody may write to: what is mounted there takes its mode.
func (t *trial) fillShell(ctx context.Context, dir string) error {
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.MkdirAll(tmp, 0o755), os.Chmod(tmp, 0o777|fs.ModeSticky)); err != nil {
		return err
	}
	if err := t.copyProgram(ctx, "busybox", dir); err != nil {
		return err
	}
	for _, name := range []string{"sh", "cat", "chown", "cut", "dirname", "grep", "kill", "sed", "sha256sum", "tr", "wget"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

// copyProgram copies a program of this machine into dir/bin, and the libraries
// that it is linked with to where it looks for them.
func (t *trial) copyProgram(ctx context.Context, name, dir string) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != t.engine.arch {
		return fmt.Errorf("%s of this machine (%s/%s) does not run on the engine (linux/%s)", name, runtime.GOOS, runtime.GOARCH, t.engine.arch)
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(dir, "bin", name), 0o755); err != nil {
		return err
	}
	out, err := output(ctx, nil, "ldd", program)
	if err != nil && !strings.Contains(err.Error(), "not a dynamic executable") {
		return err
	}
	for _, library := range libraries(out) {
		if err := copyFile(library, filepath.Join(dir, library), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// libraries are the paths in the output of ldd.
func libraries(ldd string) (paths []string) {
	for word := range strings.FieldsSeq(ldd) {
		if strings.HasPrefix(word, "/") {
			paths = append(paths, word)
		}
	}
	return paths
}

// finalStage returns the last stage of a Dockerfile as one of its own: what it
// copies from the stage before is copied from the context.
func finalStage(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	at := strings.LastIndex(string(text), "\nFROM scratch\n")
	if at < 0 {
		return "", fmt.Errorf("%s does not end in a stage FROM scratch", path)
	}
	return strings.ReplaceAll(string(text[at+1:]), "COPY --from=build ", "COPY "), nil
}

// foreignImages returns the images of NATS and Redis in compose.yaml.
func foreignImages(path string) (nats, redis string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	var file struct {
		Services map[string]struct{ Image string }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return "", "", fmt.Errorf("read %s: %w", path, err)
	}
	nats, redis = file.Services["nats"].Image, file.Services["redis"].Image
	if nats == "" || redis == "" {
		return "", "", fmt.Errorf("%s names no image of NATS or Redis", path)
	}
	return nats, redis, nil
}

func firstFile(paths ...string) (string, error) {
	var errs []error
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, err)
			continue
		}
		return path, nil
	}
	return "", errors.Join(errs...)
}

func copyFile(from, to string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close(), os.Chmod(to, mode))
}
