#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-only
# perl at work: a hash that grows, a child behind pipes, a sort that must come out the same.
use strict;
use warnings;
use IPC::Open2;

my $dir = shift;
my %seen;
my $pid = open2(my $from, my $to, '/bin/cat');
select((select($to), $| = 1)[0]);
my ($n, $ready) = (0, 0);

sub put {
    my ($name, $text) = @_;
    open(my $file, '>', "$dir/$name.new") or die;
    print $file $text;
    close $file;
    rename "$dir/$name.new", "$dir/$name";
}

while (1) {
    my $bad = '';
    $n++;
    $seen{$n % 5000} = $n;
    print $to "$n\n";
    my $answer = <$from>;
    $bad = "BAD answer" unless defined $answer && $answer == $n;
    if (!$ready) { put('ready', $$); $ready = 1; }
    if ($bad || -e "$dir/go") {
        for my $key (keys %seen) { $bad = "BAD hash at $key" if $seen{$key} % 5000 != $key; }
        my @sorted = sort { $a <=> $b } values %seen;
        $bad = "BAD maximum" if $sorted[-1] != $n;
        unlink "$dir/go";
        put('report', "step $n " . ($bad || 'ok') . "\n");
    }
}
