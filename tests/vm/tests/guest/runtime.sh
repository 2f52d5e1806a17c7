for program in /tests/*; do
    for name in $($program --list 2>/dev/null | sed -n 's/: test$//p'); do
        title="$(basename $program)::$name"
        if timeout 150 $program --exact "$name" --test-threads 1 > /tmp/said 2>&1; then
            ok "$title"
        else
            failed "$title"
            tail -n 40 /tmp/said
        fi
    done
done
finish
