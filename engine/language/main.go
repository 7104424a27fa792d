// The Python language host that an engine built from source gets: Pulumi's own is in a Go module that is not published.
//
// Which Python runs a program, and which virtual environment, is decided by the SDK's own package for that
// (sdk/v3/python/toolchain), so that a project that works here works with Pulumi's host, and the other way round.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pulumi/pulumi/sdk/v3"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// Runs a program in the Python that was chosen; it lies beside this file.
	executor = "pulumi-language-python-exec"
	// The executor's exit status where it has told the user everything.
	told = 32
	// How long a program that was interrupted may take to end.
	patience = 5 * time.Second
	// How often it is seen that the engine lives.
	pulse = time.Minute
)

type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer
	executor string
	engine   string
}

func main() {
	flag.Parse()
	if err := serve(flag.Arg(0)); err != nil {
		fmt.Fprintf(os.Stderr, "pulumi-language-python: %v\n", err)
		os.Exit(1)
	}
}

// serve answers the engine until it goes away or interrupts; it prints the port, as the engine expects.
func serve(engine string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ended := make(chan bool)
	go func() {
		<-ctx.Done()
		stop()
		close(ended)
	}()
	if engine != "" {
		if err := rpcutil.Healthcheck(ctx, engine, pulse, stop); err != nil {
			return err
		}
	}
	serving, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: ended,
		Init: func(server *grpc.Server) error {
			us := &host{executor: filepath.Join(filepath.Dir(path), executor), engine: engine}
			pulumirpc.RegisterLanguageRuntimeServer(server, us)
			return nil
		},
		Options: rpcutil.TracingServerInterceptorOptions(nil),
	})
	if err != nil {
		return err
	}
	fmt.Println(serving.Port)
	return <-serving.Done
}

// chosen returns the toolchain of a program or plugin, as the runtime options of its Pulumi.yaml and its files say.
func chosen(info *pulumirpc.ProgramInfo, plugin bool) (toolchain.Toolchain, error) {
	options := toolchain.PythonOptions{Root: info.RootDirectory, ProgramDir: info.ProgramDirectory}
	given := info.Options.AsMap()
	if found, ok := given["virtualenv"]; ok {
		if options.Virtualenv, ok = found.(string); !ok {
			return nil, errors.New("virtualenv option must be a string")
		}
	}
	switch given["toolchain"] {
	case nil:
	case "pip":
		options.Toolchain = toolchain.Pip
	case "poetry":
		options.Toolchain = toolchain.Poetry
	case "uv":
		options.Toolchain = toolchain.Uv
	default:
		return nil, fmt.Errorf("unsupported toolchain option: %v", given["toolchain"])
	}
	byPip := options.Toolchain == toolchain.Pip || options.Toolchain == toolchain.Auto
	if plugin && byPip && options.Virtualenv == "" {
		options.Virtualenv = "venv"
	}
	return toolchain.ResolveToolchain(options)
}

func (*host) Handshake(
	context.Context, *pulumirpc.LanguageHandshakeRequest,
) (*pulumirpc.LanguageHandshakeResponse, error) {
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

func (*host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version.Version}, nil
}

// GetRequiredPackages makes sure of the virtual environment. Plugins are found when a resource asks for one.
func (*host) GetRequiredPackages(
	ctx context.Context, request *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	tool, err := chosen(request.Info, false)
	if err != nil {
		return nil, err
	}
	if err := tool.EnsureVenv(ctx, request.Info.ProgramDirectory, false, true, os.Stderr, os.Stderr); err != nil {
		return nil, err
	}
	return &pulumirpc.GetRequiredPackagesResponse{}, nil
}

func (*host) About(ctx context.Context, request *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	tool, err := chosen(request.Info, false)
	if err != nil {
		return nil, err
	}
	found, err := tool.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{Executable: found.PythonExecutable, Version: found.PythonVersion.String()}, nil
}

func (*host) GetProgramDependencies(
	context.Context, *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	return &pulumirpc.GetProgramDependenciesResponse{}, nil
}

func (*host) InstallDependencies(
	request *pulumirpc.InstallDependenciesRequest, server pulumirpc.LanguageRuntime_InstallDependenciesServer,
) error {
	tool, err := chosen(request.Info, request.IsPlugin)
	if err != nil {
		return err
	}
	closer, out, problems, err := rpcutil.MakeInstallDependenciesStreams(server, request.IsTerminal)
	if err != nil {
		return err
	}
	defer closer.Close()
	folder := request.Info.ProgramDirectory
	return tool.InstallDependencies(server.Context(), folder, request.UseLanguageVersionTools, true, out, problems)
}

func (us *host) Run(ctx context.Context, request *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	tool, err := chosen(request.Info, false)
	if err != nil {
		return nil, err
	}
	if err := tool.ValidateVenv(ctx); err != nil {
		return nil, err
	}
	program, err := tool.Command(ctx, us.arguments(request)...)
	if err != nil {
		return nil, err
	}
	configuration, err := object(request.Config)
	if err != nil {
		return nil, err
	}
	secrets, err := json.Marshal(append([]string{}, request.ConfigSecretKeys...))
	if err != nil {
		return nil, err
	}
	if program.Env == nil {
		program.Env = os.Environ()
	}
	program.Env = append(
		program.Env, "PULUMI_CONFIG="+string(configuration), "PULUMI_CONFIG_SECRET_KEYS="+string(secrets),
	)
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.WaitDelay = patience
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	return outcome(program.Run()), nil
}

func (us *host) arguments(request *pulumirpc.RunRequest) []string {
	arguments := []string{"-u", us.executor}
	for _, pair := range [][2]string{
		{"monitor", request.MonitorAddress},
		{"engine", us.engine},
		{"project", request.Project},
		{"root_directory", request.Info.RootDirectory},
		{"stack", request.Stack},
		{"pwd", request.Pwd},
		{"dry_run", strconv.FormatBool(request.DryRun)},
		{"parallel", strconv.Itoa(int(request.Parallel))},
		{"organization", request.Organization},
	} {
		if pair[1] != "" {
			arguments = append(arguments, "--"+pair[0], pair[1])
		}
	}
	return append(append(arguments, request.Info.EntryPoint), request.Args...)
}

// outcome is what the engine is told of how a program ended.
func outcome(ended error) *pulumirpc.RunResponse {
	var exit *exec.ExitError
	switch {
	case ended == nil:
		return &pulumirpc.RunResponse{}
	case errors.As(ended, &exit) && exit.ExitCode() == told:
		return &pulumirpc.RunResponse{Bail: true}
	case errors.As(ended, &exit) && exit.ExitCode() > 0:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited with non-zero exit code: %d", exit.ExitCode())}
	default:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited unexpectedly: %v", ended)}
	}
}

// RunPlugin runs a policy pack, or a plugin with a __main__.py.
func (*host) RunPlugin(request *pulumirpc.RunPluginRequest, server pulumirpc.LanguageRuntime_RunPluginServer) error {
	ctx, folder := server.Context(), request.Info.ProgramDirectory
	policies := request.Kind == string(apitype.AnalyzerPlugin)
	tool, err := chosen(request.Info, !policies)
	if err != nil {
		return err
	}
	arguments := append([]string{folder}, request.Args...)
	if policies {
		arguments = append(append([]string{"-u", "-m", "pulumi.policy"}, request.Args...), folder)
	}
	plugin, err := tool.Command(ctx, arguments...)
	if err != nil {
		return err
	}
	closer, out, problems, err := rpcutil.MakeRunPluginStreams(server, false)
	if err != nil {
		return err
	}
	defer closer.Close()
	if plugin.Dir = request.Pwd; policies {
		plugin.Dir = folder
	}
	if plugin.Env == nil {
		plugin.Env = os.Environ()
	}
	var proxy *sdk.PolicyProxy
	if policies {
		// A policy pack finds the stack's configuration in its environment, and so it is asked for before it starts.
		if proxy, out, err = sdk.NewPolicyProxy(ctx, out); err != nil {
			return err
		}
		asked, err := proxy.AwaitConfiguration(ctx)
		if err != nil {
			return err
		}
		if plugin.Env, err = configured(plugin.Env, asked); err != nil {
			return err
		}
	}
	plugin.Env = append(plugin.Env, request.Env...)
	plugin.Stdout, plugin.Stderr = out, problems
	if err = plugin.Start(); err == nil {
		if proxy != nil {
			err = proxy.Attach(ctx, plugin)
		} else {
			err = plugin.Wait()
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code := pulumirpc.RunPluginResponse_Exitcode{Exitcode: int32(exit.ExitCode())}
		return server.Send(&pulumirpc.RunPluginResponse{Output: &code})
	}
	return err
}

// object returns a JSON object, an empty one where there is none: Python reads the names and values of it.
func object(values map[string]string) ([]byte, error) {
	if values == nil {
		values = map[string]string{}
	}
	return json.Marshal(values)
}

func configured(environment []string, asked *pulumirpc.AnalyzerStackConfigureRequest) ([]string, error) {
	if asked == nil {
		return environment, nil
	}
	configuration, err := object(asked.Config)
	if err != nil {
		return nil, err
	}
	return append(
		environment,
		"PULUMI_ORGANIZATION="+asked.Organization,
		"PULUMI_PROJECT="+asked.Project,
		"PULUMI_STACK="+asked.Stack,
		"PULUMI_DRY_RUN="+strconv.FormatBool(asked.DryRun),
		"PULUMI_CONFIG="+string(configuration),
	), nil
}
